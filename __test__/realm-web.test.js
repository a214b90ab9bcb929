"use strict";

// The unmodified realm-web 2.0.1 against `serve`.

const RealmWeb = require("realm-web");
const { setEnvironment, getEnvironment } = RealmWeb;
const { DATABASE, COLLECTION, PASSWORD, QUICKSTART, Realm, openDefinition, writeDefinition } = require("./helpers.js");

const servers = [];

async function serve(options = {}) {
  const server = await Realm.serve({
    app: "web-app",
    definition: QUICKSTART,
    store: "memory:",
    port: 0,
    logger: null,
    ...options,
  });
  servers.push(server);
  return server;
}

async function openWeb(options) {
  const { url } = await serve(options);
  return new RealmWeb.App({ id: "web-app", baseUrl: url });
}

async function logInNew(app, email = `web${Math.random()}@example.com`) {
  await app.emailPasswordAuth.registerUser({ email, password: PASSWORD });
  return app.logIn(RealmWeb.Credentials.emailPassword(email, PASSWORD));
}

const collectionOf = (user, name = COLLECTION) => user.mongoClient("mongodb-atlas").db(DATABASE).collection(name);

beforeEach(() => {
  // realm-web keeps its users in one memory for the whole process; each test has one of its own.
  const { defaultStorage } = getEnvironment();
  setEnvironment({ ...getEnvironment(), defaultStorage: new defaultStorage.constructor() });
});

afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.close()));
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

test("two users, switching, logging out, deleting", async () => {
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

test("every method of a collection", async () => {
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
  expect(await plants.findOne({ name: "nobody" })).toBeNull();
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
  // It arrives as a replacement without one.
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

test("what the rules refuse is a 403, and asks for no refresh", async () => {
  const app = await openWeb();
  const user = await logInNew(app);
  await expect(collectionOf(user).insertOne({ userId: "somebody" })).rejects.toMatchObject({
    statusCode: 403,
    error: "insert not permitted",
  });
  await expect(collectionOf(user, "other").find()).rejects.toMatchObject({
    statusCode: 403,
    error: `no rule exists for namespace '${DATABASE}.other'`,
  });
});

test("a forged access token is refreshed, and a session that has ended ends the user", async () => {
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

test("what is not there yet answers with its own error", async () => {
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
  const other = new RealmWeb.App({ id: "other-app", baseUrl: (await serve({ definition })).url });
  await expect(other.logIn(RealmWeb.Credentials.anonymous())).rejects.toMatchObject({
    error: "cannot find app using Client App ID 'other-app'",
  });
});
