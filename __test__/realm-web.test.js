"use strict";

// Runs the unmodified realm-web 2.0.1 against `serve`.

const crypto = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const RealmWeb = require("realm-web");
const { setEnvironment, getEnvironment } = RealmWeb;
const {
  DATABASE,
  COLLECTION,
  PASSWORD,
  Realm,
  openDefinition,
  serve,
  temporaryDirectory,
  writeDefinition,
} = require("./helpers.js");

async function openWeb(options) {
  const { url } = await serve({ app: "web-app", ...options });
  return new RealmWeb.App({ id: "web-app", baseUrl: url });
}

async function logInNew(app, email = `web${Math.random()}@example.com`) {
  await app.emailPasswordAuth.registerUser({ email, password: PASSWORD });
  return app.logIn(RealmWeb.Credentials.emailPassword(email, PASSWORD));
}

const collectionOf = (user, name = COLLECTION) => user.mongoClient("mongodb-atlas").db(DATABASE).collection(name);

beforeEach(() => {
  // realm-web has one storage for the users of the whole process; each test gets a new one.
  const { defaultStorage } = getEnvironment();
  setEnvironment({ ...getEnvironment(), defaultStorage: new defaultStorage.constructor() });
});

test("logs in, shows the profile, writes custom data and refreshes it", async () => {
  const app = await openWeb();
  const user = await logInNew(app, "ada@example.com");
  expect(app.currentUser).toBe(user);
  expect(user.profile).toEqual({ email: "ada@example.com" });
  expect(user.identities).toEqual([expect.objectContaining({ providerType: "local-userpass" })]);
  expect(user.deviceId).toMatch(/^[0-9a-f]{24}$/);
  expect(user.customData).toEqual({});

  const collection = collectionOf(user);
  const written = await collection.updateOne(
    { userId: user.id },
    { $set: { favoriteColor: "pink", n: 5, at: new Date(0) } },
    { upsert: true },
  );
  expect(written).toEqual({ matchedCount: 0, modifiedCount: 0, upsertedId: expect.anything() });
  expect(user.customData).toEqual({});
  await user.refreshCustomData();
  expect(user.customData).toMatchObject({
    favoriteColor: "pink",
    userId: user.id,
    n: { $numberInt: "5" },
    at: { $date: { $numberLong: "0" } },
  });
});

test("switches between two users, logs out and deletes a user", async () => {
  const app = await openWeb();
  const one = await logInNew(app);
  const two = await app.logIn(RealmWeb.Credentials.anonymous());
  expect(app.currentUser.id).toBe(two.id);
  app.switchUser(one);
  expect(app.currentUser.id).toBe(one.id);
  await app.deleteUser(one);
  expect(one.state).toBe("removed");
  expect(app.currentUser.id).toBe(two.id);
  await two.logOut();
  expect(app.currentUser).toBeNull();
  await expect(app.logIn(RealmWeb.Credentials.emailPassword(one.profile.email, PASSWORD))).rejects.toMatchObject({
    statusCode: 401,
    error: "unauthorized",
    errorCode: "InvalidPassword",
  });
});

test("every collection method works", async () => {
  const app = await openWeb({ definition: openDefinition() });
  const plants = collectionOf(await logInNew(app), "plants");
  expect(
    await plants.insertMany([
      { _id: 1, name: "fern" },
      { _id: 2, name: "moss", at: new Date(5) },
    ]),
  ).toEqual({ insertedIds: [1, 2] });
  expect((await plants.insertOne({ name: "ivy" })).insertedId.toHexString()).toMatch(/^[0-9a-f]{24}$/);
  expect(await plants.find({ _id: { $in: [1, 2] } }, { projection: { _id: 0 }, sort: { name: -1 } })).toEqual([
    { name: "moss", at: new Date(5) },
    { name: "fern" },
  ]);
  expect(await plants.findOne({ name: "unknown" })).toBeNull();
  expect(await plants.count({ _id: 1 })).toBe(1);
  expect(await plants.aggregate([{ $match: { _id: 1 } }, { $project: { name: 1 } }])).toEqual([
    { _id: 1, name: "fern" },
  ]);
  expect(await plants.updateOne({ _id: 1 }, { $set: { n: 1 } })).toEqual({ matchedCount: 1, modifiedCount: 1 });
  expect(await plants.updateMany({ _id: { $lte: 2 } }, { hidden: true })).toEqual({
    matchedCount: 2,
    modifiedCount: 2,
  });
  expect(await plants.findOneAndUpdate({ _id: 1 }, { $inc: { n: 1 } }, { returnNewDocument: true })).toEqual({
    _id: 1,
    hidden: true,
    n: 1,
  });
  expect(await plants.findOneAndReplace({ _id: 1 }, { new: true })).toMatchObject({ n: 1 });
  // The replacement above has no `_id`; the document keeps its own.
  expect(await plants.findOneAndDelete({ _id: 1 })).toEqual({ _id: 1, new: true });
  expect(await plants.deleteOne({ _id: 2 })).toEqual({ deletedCount: 1 });
  expect(await plants.deleteMany()).toEqual({ deletedCount: 1 });
  await plants.insertOne({ _id: 1 });
  await expect(plants.insertOne({ _id: 1 })).rejects.toMatchObject({
    statusCode: 400,
    errorCode: "MongoDBError",
    error: expect.stringContaining("Duplicate key error"),
  });
});

test("a denial by the rules is a 403, which does not refresh the token", async () => {
  const app = await openWeb();
  const user = await logInNew(app);
  await expect(collectionOf(user).insertOne({ userId: "another-user" })).rejects.toMatchObject({
    statusCode: 403,
    error: "insert not permitted",
  });
  await expect(collectionOf(user, "other").find()).rejects.toMatchObject({
    statusCode: 403,
    error: `no rule exists for namespace '${DATABASE}.other'`,
  });
});

test("a forged access token is refreshed; after a log-out, the refresh token is rejected", async () => {
  const app = await openWeb();
  const user = await logInNew(app);
  const forged = `${user.accessToken.split(".").slice(0, 2).join(".")}.${"A".repeat(86)}`;
  user.accessToken = forged;
  expect(await collectionOf(user).find()).toEqual([]);
  expect(user.accessToken).not.toBe(forged);
  const { refreshToken } = user;
  await user.logOut();
  user.refreshToken = refreshToken;
  await expect(user.refreshAccessToken()).rejects.toMatchObject({
    statusCode: 401,
    error: "invalid session: failed to find refresh token",
  });
});

/**
 * Returns the token with other claims, signed with the server's key, which is read from the
 * store's file.
 */
function resigned(token, directory, claims) {
  const kept = fs.readdirSync(directory).filter((name) => name.includes("sqlite"));
  const bytes = Buffer.concat(kept.map((name) => fs.readFileSync(path.join(directory, name))));
  // An Ed25519 key in PKCS #8: the prefix of its 32 bytes is constant.
  const mark = Buffer.from("300506032b657004220420", "hex");
  const place = bytes.indexOf(mark) + mark.length;
  const seed = bytes.subarray(place, place + 32);
  const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
  const key = crypto.createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  const [header, payload] = token.split(".");
  const changed = { ...JSON.parse(Buffer.from(payload, "base64url")), ...claims };
  const text = `${header}.${Buffer.from(JSON.stringify(changed)).toString("base64url")}`;
  return `${text}.${crypto.sign(null, Buffer.from(text), key).toString("base64url")}`;
}

test("an expired access token is refreshed, and an expired refresh token is rejected", async () => {
  const baseFilePath = temporaryDirectory();
  const app = await openWeb({ store: undefined, baseFilePath });
  const user = await logInNew(app);
  const directory = path.join(baseFilePath, ".userkeep");
  const now = Math.floor(Date.now() / 1000);
  // A token signed again with the same claims is valid, so only the times below cause the errors.
  const good = resigned(user.accessToken, directory, {});
  user.accessToken = good;
  expect(await collectionOf(user).find()).toEqual([]);
  expect(user.accessToken).toBe(good);
  const expired = resigned(user.accessToken, directory, { iat: now - 3600, exp: now - 1 });
  user.accessToken = expired;
  expect(await collectionOf(user).find()).toEqual([]);
  expect(user.accessToken).not.toBe(expired);
  user.refreshToken = resigned(user.refreshToken, directory, { exp: now - 1 });
  await expect(user.refreshAccessToken()).rejects.toMatchObject({
    statusCode: 401,
    errorCode: "InvalidSession",
    error: "invalid session: refresh token expired",
  });
});

test("features that are not configured reject with specific errors", async () => {
  const definition = writeDefinition({ "auth/providers.json": { "anon-user": { disabled: false } } });
  const app = await openWeb({ definition });
  const user = await app.logIn(RealmWeb.Credentials.anonymous());
  await expect(user.functions.sum(1, 2)).rejects.toMatchObject({
    statusCode: 404,
    errorCode: "FunctionNotFound",
    error: "function not found: 'sum'",
  });
  await expect(user.apiKeys.fetchAll()).rejects.toMatchObject({ statusCode: 404, errorCode: "AuthProviderNotFound" });
  await expect(app.logIn(RealmWeb.Credentials.jwt("x"))).rejects.toMatchObject({ errorCode: "AuthProviderNotFound" });
  await expect(
    user.linkCredentials(RealmWeb.Credentials.emailPassword("a@example.com", PASSWORD)),
  ).rejects.toMatchObject({ statusCode: 400 });
  const other = new RealmWeb.App({ id: "other-app", baseUrl: (await serve({ app: "web-app", definition })).url });
  await expect(other.logIn(RealmWeb.Credentials.anonymous())).rejects.toMatchObject({
    error: "cannot find app using Client App ID 'other-app'",
  });
});

describe("functions", () => {
  const SOURCES = {
    echo: "exports = (...all) => all;",
    one: "exports = (value) => value;",
    nothing: "exports = () => {};",
    types: `exports = () => ({
      int: 5, double: 1.5, large: 2 ** 40, none: undefined, nil: null, at: new Date(5),
      id: new BSON.ObjectId("6500000000000000000000aa"), long: BSON.Long.fromString("9223372036854775807"),
    });`,
    kinds: `exports = (at, id, long, none) => [at instanceof Date, id instanceof BSON.ObjectId, String(long), typeof none];`,
    fail: "exports = () => { throw new Error('boom'); };",
    spin: "exports = () => { for (;;) {} };",
    sleep: "exports = () => new Promise(() => {});",
    hidden: "exports = () => 1;",
    closed: "exports = () => 1;",
    late: "exports = async () => { await null; return missing; };",
    invite: "exports = 5;",
  };
  const MANIFEST = [
    { name: "hidden", private: true },
    { name: "closed", can_evaluate: { "%%user.type": "server" } },
  ];

  async function openFunctions(options) {
    const sources = Object.entries(SOURCES).map(([name, source]) => [`functions/${name}.js`, source]);
    const definition = writeDefinition({ ...Object.fromEntries(sources), "functions/config.json": MANIFEST });
    const app = await openWeb({ definition, ...options });
    return { user: await logInNew(app), url: app.baseUrl };
  }

  test("receive the arguments by position and return canonical values", async () => {
    const { user } = await openFunctions();
    const { ObjectId, Long } = Realm.BSON;
    expect(await user.functions.echo(1, "a", null, [1.5], { b: true })).toEqual([1, "a", null, [1.5], { b: true }]);
    const id = new ObjectId("6500000000000000000000aa");
    expect(await user.functions.one(new Date(5))).toEqual(new Date(5));
    expect(String(await user.functions.one(id))).toBe(String(id));
    expect(await user.callFunction("kinds", new Date(5), id, Long.MAX_VALUE)).toEqual([
      true,
      true,
      "9223372036854775807",
      "undefined",
    ]);
    // realm-web decodes numbers to those of JavaScript, and undefined to null.
    expect(await user.functions.types()).toEqual({
      int: 5,
      double: 1.5,
      large: 2 ** 40,
      none: null,
      nil: null,
      at: new Date(5),
      id: expect.objectContaining({ _bsontype: "ObjectID" }),
      long: 2 ** 63,
    });
    expect(await user.functions.nothing()).toBe(null);
  });

  test("answer with canonical Extended JSON", async () => {
    const { user, url } = await openFunctions();
    const call = async (name, args) => {
      const response = await fetch(`${url}/api/client/v2.0/app/web-app/functions/call`, {
        method: "POST",
        headers: { authorization: `Bearer ${user.accessToken}`, "content-type": "application/json" },
        body: JSON.stringify({ name, arguments: args }),
      });
      return response.text();
    };
    expect(await call("nothing", [])).toBe('{"$undefined":true}');
    expect(await call("one", [null])).toBe("null");
    expect(await call("one", [{ $numberLong: "9223372036854775807" }])).toBe('{"$numberLong":"9223372036854775807"}');
    expect(JSON.parse(await call("types", []))).toEqual({
      int: { $numberInt: "5" },
      double: { $numberDouble: "1.5" },
      large: { $numberLong: "1099511627776" },
      none: { $undefined: true },
      nil: null,
      at: { $date: { $numberLong: "5" } },
      id: { $oid: "6500000000000000000000aa" },
      long: { $numberLong: "9223372036854775807" },
    });
  });

  test.each([
    ["fail", 400, "FunctionExecutionError", "boom"],
    ["late", 400, "FunctionExecutionError", "ReferenceError: 'missing' is not defined"],
    ["nope", 404, "FunctionNotFound", "function not found: 'nope'"],
    ["hidden", 404, "FunctionNotFound", "function not found: 'hidden'"],
    ["closed", 403, "FunctionExecutionError", 'rule not matched for function "closed"'],
    ["invite", 400, "FunctionInvalid", "exports of function 'invite' is not a function"],
  ])("reject %s with the status %i and the code %s", async (name, statusCode, errorCode, error) => {
    const { user } = await openFunctions();
    await expect(user.callFunction(name)).rejects.toMatchObject({ statusCode, errorCode, error });
  });

  test("reject with the code of the time limit", async () => {
    const { user } = await openFunctions({ functions: { threads: 2, timeLimit: 1500 } });
    const late = { errorCode: "ExecutionTimeLimitExceeded", error: "execution time limit exceeded" };
    await Promise.all(["spin", "sleep"].map((name) => expect(user.callFunction(name)).rejects.toMatchObject(late)));
    expect(await user.functions.one("again")).toBe("again");
  });

  test("are called with a refreshed token if the access token is invalid", async () => {
    const { user } = await openFunctions();
    const forged = `${user.accessToken.split(".").slice(0, 2).join(".")}.${"A".repeat(86)}`;
    user.accessToken = forged;
    expect(await user.functions.one("a")).toBe("a");
    expect(user.accessToken).not.toBe(forged);
  });
});
