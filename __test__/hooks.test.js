"use strict";

// The functions that the backend calls itself, as the documentation's pages show them.

const fs = require("node:fs");
const path = require("node:path");
const { MODE, PASSWORD, Realm, openApp, temporaryDirectory } = require("./helpers.js");
const { INSERT_CUSTOM_DATA, RECORD, customDataOf, eventsOf, writeHooks } = require("./hooks-definition.js");

const { Credentials } = Realm;

/** Opens an app with hooks. */
const open = (hooks, functions, files) => openApp({ definition: writeHooks(hooks, functions, files) });

const email = "ada@example.com";
const logIn = (app, password = PASSWORD) => app.logIn(Credentials.emailPassword(email, password));
const register = (app, name = email) => app.emailPasswordAuth.registerUser({ email: name, password: PASSWORD });

const failure = (promise) =>
  promise.then(
    () => "nothing failed",
    ({ message, code }) => ({ message, code }),
  );

/** A confirmation or reset function that records, and answers with a status. */
const answering = (status) => `exports = async (event, ...rest) => {
  const { status = "${status}" } = await context.services.get("mongodb-atlas").db("app").collection("settings").findOne({}) ?? {};
  event.rest = rest;
  ${RECORD}
  return { status };
};`;

const SET_STATUS = `exports = (status) => context.services.get("mongodb-atlas").db("app").collection("settings")
  .updateOne({}, { $set: { status } }, { upsert: true });`;

async function setStatus(app, status) {
  const user = await app.logIn(Credentials.anonymous(false));
  await user.functions.setStatus(status);
  await app.removeUser(user);
}

describe("a log-in with a function", () => {
  const LOG_IN = `exports = async (loginPayload) => {
    const users = context.services.get("mongodb-atlas").db("app").collection("users");
    const { username } = loginPayload;
    const user = await users.findOne({ username });
    if (user) {
      return { id: user._id.toString(), name: username };
    }
    const result = await users.insertOne({ username });
    return { id: result.insertedId.toString(), name: username };
  };`;

  test("gives the same user for the same id, with the name in the profile", async () => {
    const app = await open({ authentication: LOG_IN });
    const first = await app.logIn(Credentials.function({ username: "ada" }));
    const again = await app.logIn(Credentials.function({ username: "ada" }));
    const other = await app.logIn(Credentials.function({ username: "another" }));
    expect(again.id).toBe(first.id);
    expect(other.id).not.toBe(first.id);
    expect(first.providerType).toBe("custom-function");
    expect(first.profile).toEqual({ name: "ada" });
    expect(first.identities).toEqual([
      { id: expect.stringMatching(/^[0-9a-f]{24}$/), providerType: "custom-function" },
    ]);
    expect(first.identities[0].id).not.toBe(first.id);
  });

  test("gives the payload without the SDK's options, and the system user", async () => {
    const app = await open({
      authentication: `exports = async (payload) => {
        const event = { payload, user: context.user, system: context.runningAsSystem() };
        ${RECORD}
        return payload.id;
      };`,
    });
    const payload = { id: "x", n: 5, nested: { list: [1, "a"] }, provider: "mine", options: { mine: true } };
    const user = await app.logIn(Credentials.function(payload));
    expect(user.identities[0].id).toBe("x");
    expect(user.profile).toEqual({});
    const { options, ...rest } = payload;
    expect(await eventsOf(app)).toEqual([{ payload: rest, user: { type: "system" }, system: true }]);
  });

  test("takes a new name at each log-in", async () => {
    const app = await open({ authentication: "exports = ({ id, name }) => ({ id, name });" });
    const first = await app.logIn(Credentials.function({ id: "1", name: "Ada" }));
    expect(first.profile).toEqual({ name: "Ada" });
    const again = await app.logIn(Credentials.function({ id: "1", name: "Ada L." }));
    expect([again.id, again.profile]).toEqual([first.id, { name: "Ada L." }]);
    expect((await app.logIn(Credentials.function({ id: "1" }))).profile).toEqual({ name: "Ada L." });
  });

  test.each([
    ["an error", "throw new Error('Authentication failed')", "Authentication failed"],
    ["a text", "throw 'no'", "no"],
    ["an object", "throw { reason: 1 }", '{"reason":1}'],
    ["an unknown name", "return unknown", "ReferenceError: 'unknown' is not defined"],
    ["a rejection", "return Promise.reject(new Error('late'))", "late"],
  ])("fails with the message of %s", async (_name, statement, message) => {
    const app = await open({ authentication: `exports = () => { ${statement}; };` });
    expect(await failure(app.logIn(Credentials.function({})))).toEqual({ message, code: 4346 });
    expect(app.currentUser).toBe(null);
  });

  test.each([
    ["new BSON.ObjectId()", "an ObjectId"],
    ["undefined", "nothing"],
    ["null", "null"],
    ["5", "a number"],
    ["''", "an empty id"],
    ["{ name: 'a' }", "an object without an id"],
    ["{ id: new BSON.ObjectId() }", "an ObjectId as the id"],
    ["['a']", "an array"],
  ])("refuses the answer %s", async (answer, what) => {
    const app = await open({ authentication: `exports = () => (${answer});` });
    expect(await failure(app.logIn(Credentials.function({})))).toEqual({
      message: `the authentication function must return a string or { id, name }, and not ${what}`,
      code: 4346,
    });
  });

  test("gives one user to simultaneous log-ins with a new id", async () => {
    const app = await open({ authentication: "exports = () => 'same';", creation: INSERT_CUSTOM_DATA });
    const users = await Promise.all(Array.from({ length: 8 }, () => app.logIn(Credentials.function({}))));
    expect(new Set(users.map(({ id }) => id)).size).toBe(1);
    expect(await customDataOf(users[0])).toHaveLength(1);
  });

  test("is not enabled without the provider", async () => {
    const app = await open({});
    expect(await failure(app.logIn(Credentials.function({})))).toEqual({
      message: "authentication via 'custom-function' is unsupported",
      code: 4316,
    });
  });
});

describe("a confirmation function", () => {
  test("confirms the user at once if it succeeds", async () => {
    const app = await open({ confirmation: answering("success") });
    await register(app);
    expect((await logIn(app)).profile.email).toBe(email);
    const [event] = await eventsOf(app);
    expect(event).toEqual({
      token: expect.stringMatching(/^[0-9a-f]{128}$/),
      tokenId: expect.stringMatching(/^[0-9a-f]{24}$/),
      username: email,
      rest: [],
    });
    expect(await failure(app.emailPasswordAuth.retryCustomConfirmation({ email }))).toEqual({
      message: "already confirmed",
      code: 4343,
    });
    expect(await failure(app.emailPasswordAuth.resendConfirmationEmail({ email }))).toMatchObject({ code: 4343 });
  });

  test("may leave the user to the token, which confirms once", async () => {
    const app = await open({ confirmation: answering("pending") });
    await register(app);
    expect(await failure(logIn(app))).toEqual({ message: "confirmation required", code: 4346 });
    expect(await failure(logIn(app, "another password"))).toEqual({ message: "unauthorized", code: 4349 });
    expect(await failure(register(app))).toEqual({ message: "name already in use", code: 4348 });
    const auth = app.emailPasswordAuth;
    expect(await failure(auth.resendConfirmationEmail({ email }))).toEqual({
      message: "please use confirm via function",
      code: 4347,
    });
    const [{ token, tokenId }] = await eventsOf(app);
    const invalid = { message: "userpass token is expired or invalid", code: 4353 };
    const otherToken = token.replace(/^./, (digit) => (digit === "0" ? "1" : "0"));
    expect(await failure(auth.confirmUser({ token: otherToken, tokenId }))).toEqual(invalid);
    expect(await failure(auth.confirmUser({ token, tokenId: "0".repeat(24) }))).toEqual(invalid);
    expect(await failure(auth.resetPassword({ token, tokenId, password: PASSWORD }))).toEqual(invalid);
    expect(await failure(auth.confirmUser({ token: "t", tokenId }))).toEqual({
      message: "invalid token data",
      code: 4347,
    });
    await auth.confirmUser({ token, tokenId });
    expect((await logIn(app)).isLoggedIn).toBe(true);
    expect(await failure(auth.confirmUser({ token, tokenId }))).toEqual(invalid);
  });

  test("runs again for a pending user, and replaces the token", async () => {
    const app = await open({ confirmation: answering("pending") }, { setStatus: SET_STATUS });
    const auth = app.emailPasswordAuth;
    expect(await failure(auth.retryCustomConfirmation({ email }))).toEqual({ message: "user not found", code: 4344 });
    await register(app);
    await auth.retryCustomConfirmation({ email });
    const [first, second] = await eventsOf(app);
    expect(await failure(auth.confirmUser(first))).toMatchObject({ code: 4353 });
    await setStatus(app, "fail");
    expect(await failure(auth.retryCustomConfirmation({ email }))).toEqual({
      message: `failed to confirm user "${email}"`,
      code: 4347,
    });
    expect(await failure(logIn(app))).toMatchObject({ code: 4346 });
    await setStatus(app, "success");
    await auth.retryCustomConfirmation({ email });
    expect((await logIn(app)).isLoggedIn).toBe(true);
    expect(await failure(auth.confirmUser(second))).toMatchObject({ code: 4353 });
  });

  test.each([
    ["fail", "({ status: 'fail' })"],
    ["another status", "({ status: 'ok' })"],
    ["no object", "true"],
    ["nothing", "undefined"],
    ["an error", "(() => { throw new Error('boom'); })()"],
  ])("with %s stores nothing", async (_name, answer) => {
    const app = await open({ confirmation: `exports = () => ${answer};` });
    const refused = { message: `failed to confirm user "${email}"`, code: 4347 };
    expect(await failure(register(app))).toEqual(refused);
    expect(await failure(app.emailPasswordAuth.retryCustomConfirmation({ email }))).toEqual({
      message: "user not found",
      code: 4344,
    });
    // The address is free again.
    expect(await failure(register(app))).toEqual(refused);
    expect(await failure(logIn(app))).toMatchObject({ code: 4349 });
  });

  test("does not run for a name or a password that is not allowed, or a name in use", async () => {
    const app = await open({ confirmation: answering("success") });
    await register(app);
    const attempt = (details) => failure(app.emailPasswordAuth.registerUser(details));
    expect(await attempt({ email: "b@example.com", password: "short" })).toMatchObject({ code: 4347 });
    expect(await attempt({ email: " ", password: PASSWORD })).toMatchObject({ message: "email invalid" });
    expect(await attempt({ email, password: PASSWORD })).toMatchObject({ code: 4348 });
    expect(await eventsOf(app)).toHaveLength(1);
  });
});

describe("a reset function", () => {
  const NEW = "n3w passw0rd";
  const call = (app, ...args) => app.emailPasswordAuth.callResetPasswordFunction({ email, password: NEW }, ...args);

  test("gets all arguments, and its success sets the password", async () => {
    const app = await open({ reset: answering("success") });
    await register(app);
    await call(app, "security question answer", 42, { nested: [true] });
    const [event] = await eventsOf(app);
    expect(event).toEqual({
      username: email,
      password: NEW,
      token: expect.stringMatching(/^[0-9a-f]{128}$/),
      tokenId: expect.stringMatching(/^[0-9a-f]{24}$/),
      currentPasswordValid: false,
      rest: ["security question answer", 42, { nested: [true] }],
    });
    expect(await failure(logIn(app))).toMatchObject({ code: 4349 });
    expect((await logIn(app, NEW)).isLoggedIn).toBe(true);
  });

  test("learns that the password is the current one", async () => {
    const app = await open({ reset: answering("fail") });
    await register(app);
    const { emailPasswordAuth: auth } = app;
    const refused = { message: `failed to reset password for user "${email}"`, code: 4351 };
    expect(await failure(auth.callResetPasswordFunction({ email, password: PASSWORD }))).toEqual(refused);
    expect(await failure(call(app))).toEqual(refused);
    const events = await eventsOf(app);
    expect(events.map(({ currentPasswordValid }) => currentPasswordValid)).toEqual([true, false]);
    expect((await logIn(app)).isLoggedIn).toBe(true);
  });

  test("may leave the reset to the token, which sets a password once", async () => {
    const app = await open({ reset: answering("pending") });
    await register(app);
    await call(app);
    await call(app);
    expect((await logIn(app)).isLoggedIn).toBe(true);
    const [replaced, { token, tokenId }] = await eventsOf(app);
    const auth = app.emailPasswordAuth;
    const reset = (details) => auth.resetPassword({ password: "third passw0rd", ...details });
    expect(await failure(reset(replaced))).toMatchObject({ code: 4353 });
    expect(await failure(reset({ token, tokenId, password: "short" }))).toMatchObject({
      message: "password must be between 6 and 128 characters",
    });
    expect(await failure(auth.confirmUser({ token, tokenId }))).toMatchObject({ code: 4353 });
    await reset({ token, tokenId, password: "third passw0rd" });
    expect((await logIn(app, "third passw0rd")).isLoggedIn).toBe(true);
    expect(await failure(logIn(app))).toMatchObject({ code: 4349 });
    expect(await failure(reset({ token, tokenId }))).toEqual({
      message: "userpass token is expired or invalid",
      code: 4353,
    });
  });

  test.each(["success", "pending"])("with %s ends all sessions when the password changes", async (status) => {
    const app = await open({ reset: answering(status) });
    await register(app);
    const user = await logIn(app);
    await user.functions.calls();
    await call(app);
    if (status === "pending") {
      await user.functions.calls();
      const [{ token, tokenId }] = await eventsOf(app);
      await app.emailPasswordAuth.resetPassword({ password: NEW, token, tokenId });
    }
    await expect(user.refreshCustomData()).rejects.toMatchObject({ code: 4301 });
    expect((await logIn(app, NEW)).isLoggedIn).toBe(true);
  });

  test("does not run for an unknown or unconfirmed user, or a password that is not allowed", async () => {
    const app = await open({ reset: answering("success"), confirmation: "exports = () => ({ status: 'pending' });" });
    const unknown = { message: "user not found", code: 4344 };
    expect(await failure(call(app))).toEqual(unknown);
    await register(app);
    expect(await failure(call(app))).toEqual(unknown);
    expect(await failure(app.emailPasswordAuth.callResetPasswordFunction({ email, password: "short" }))).toMatchObject({
      message: "password must be between 6 and 128 characters",
    });
    expect(await eventsOf(app)).toEqual([]);
  });

  test("excludes mails", async () => {
    const app = await open({ reset: answering("success") });
    await register(app);
    expect(await failure(app.emailPasswordAuth.sendResetPasswordEmail({ email }))).toEqual({
      message: "please use reset password via function",
      code: 4347,
    });
  });
});

describe("a user creation function", () => {
  const anonymous = Credentials.anonymous(false);

  test("gets the user who is created, and its custom data is in the first token", async () => {
    const app = await open({
      creation: `exports = async (event) => {
        ${RECORD}
        ${INSERT_CUSTOM_DATA.replace("exports =", "const insert =")}
        await insert(event);
      };`,
    });
    await register(app);
    const user = await logIn(app);
    expect(user.customData).toMatchObject({ userId: user.id, role: "member", email });
    expect((await eventsOf(app))[0]).toEqual({
      id: user.id,
      type: "normal",
      data: { email },
      custom_data: {},
      identities: [{ id: user.identities[0].id, provider_type: "local-userpass", data: { email } }],
    });
  });

  test("runs for every provider, once", async () => {
    const app = await open({
      creation: `exports = async (event) => { ${RECORD} };`,
      authentication: "exports = () => ({ id: 'x', name: 'X' });",
    });
    await app.logIn(Credentials.function({}));
    await app.logIn(Credentials.function({}));
    await register(app);
    await logIn(app);
    await logIn(app);
    const events = await eventsOf(app);
    expect(events.map(({ identities }) => identities[0].provider_type)).toEqual([
      "custom-function",
      "local-userpass",
      "anon-user",
    ]);
    expect(events[0]).toMatchObject({ data: { name: "X" }, identities: [{ id: "x", data: { name: "X" } }] });
  });

  test("keeps work that was begun and not awaited", async () => {
    const app = await open({
      creation: `exports = (user) => {
        const data = context.services.get("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data");
        data.insertOne({ userId: user.id }).then(() => data.updateOne({ userId: user.id }, { $set: { late: true } }));
      };`,
    });
    expect((await app.logIn(anonymous)).customData).toMatchObject({ late: true });
  });

  test("refuses the user by an error, without its writes", async () => {
    const app = await open({
      creation: `exports = async (event) => {
        if (event.identities[0].provider_type === "anon-user") return;
        ${RECORD}
        throw new Error("not you");
      };`,
      authentication: "exports = () => 'x';",
    });
    const refused = { message: "failed to create user: not you", code: 4313 };
    expect(await failure(register(app))).toEqual(refused);
    expect(await failure(register(app))).toEqual(refused);
    expect(await failure(logIn(app))).toMatchObject({ code: 4349 });
    expect(await failure(app.logIn(Credentials.function({})))).toEqual(refused);
    expect(await eventsOf(app)).toEqual([]);
  });

  test("runs when a user is confirmed, and its error leaves the token valid", async () => {
    const app = await open(
      {
        confirmation: answering("pending"),
        creation: `exports = async (user) => {
          if (user.identities[0].provider_type === "anon-user") return;
          const settings = await context.services.get("mongodb-atlas").db("app").collection("settings").findOne({});
          if (!settings) throw new Error("not yet");
          const data = context.services.get("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data");
          await data.insertOne({ userId: user.id, confirmed: true });
        };`,
      },
      { setStatus: SET_STATUS },
    );
    await register(app);
    const [token] = await eventsOf(app);
    const confirm = () => app.emailPasswordAuth.confirmUser(token);
    expect(await failure(confirm())).toEqual({ message: "failed to create user: not yet", code: 4313 });
    expect(await failure(logIn(app))).toMatchObject({ code: 4346 });
    await setStatus(app, "success");
    await confirm();
    expect((await logIn(app)).customData).toMatchObject({ confirmed: true });
    expect(await failure(confirm())).toMatchObject({ code: 4353 });
  });

  test("may catch an error of a write and go on", async () => {
    const app = await open({
      creation: `exports = async (user) => {
        const db = context.services.get("mongodb-atlas").db("app");
        await db.collection("calls").insertOne({ _id: user.id, event: "before" });
        const twice = await db.collection("calls").insertOne({ _id: user.id }).catch((error) => error.code);
        await db.collection("calls").insertOne({ event: String(twice), seen: await db.collection("calls").count({ _id: user.id }) });
      };`,
    });
    const user = await app.logIn(anonymous);
    const calls = await user.functions.calls();
    expect(calls.map(({ event }) => event)).toEqual(["before", expect.any(String)]);
    expect(calls[1].seen).toBe(1);
  });

  test("repeats its writes after a conflict, without running again", async () => {
    const app = await open(
      {
        creation: `exports = async (user) => {
        const db = context.services.get("mongodb-atlas").db("app");
        await db.collection("counters").updateOne({ _id: "users" }, { $inc: { n: 1 } }, { upsert: true });
        await db.collection("calls").updateOne({ user: user.id }, { $inc: { runs: 1 } }, { upsert: true });
        await new Promise((resolve) => setTimeout(resolve, 20));
      };`,
      },
      {
        counter:
          'exports = () => context.services.get("mongodb-atlas").db("app").collection("counters").findOne({ _id: "users" });',
      },
    );
    const first = await app.logIn(anonymous);
    const users = await Promise.all(Array.from({ length: 6 }, () => app.logIn(anonymous)));
    expect(new Set(users.map(({ id }) => id)).size).toBe(6);
    expect(await first.functions.counter()).toMatchObject({ n: 7 });
    expect((await first.functions.calls()).map(({ runs }) => runs)).toEqual(Array(7).fill(1));
  });

  test("includes its own transactions in that of the user", async () => {
    const app = await open({
      creation: `exports = async (user) => {
        const service = context.services.get("mongodb-atlas");
        const calls = service.db("app").collection("calls");
        const session = service.startSession();
        await session.withTransaction(() => calls.insertOne({ event: "committed" }, { session }));
        await session.withTransaction(async () => {
          await calls.insertOne({ event: "aborted" }, { session });
          throw new Error("abort");
        }).catch(() => {});
        session.startTransaction();
        await calls.insertOne({ event: "left open" }, { session });
        if (user.identities[0].provider_type !== "anon-user") throw new Error("refused");
      };`,
    });
    expect(await failure(register(app))).toMatchObject({ code: 4313 });
    const user = await app.logIn(anonymous);
    expect((await user.functions.calls()).map(({ event }) => event)).toEqual(["committed"]);
  });

  test("refuses all users if the definition does not have it", async () => {
    const definition = writeHooks({ creation: INSERT_CUSTOM_DATA });
    fs.rmSync(path.join(definition, "functions/creation.js"));
    fs.writeFileSync(path.join(definition, "functions/config.json"), "[]");
    const app = await openApp({ definition });
    expect(await failure(app.logIn(anonymous))).toEqual({
      message: "failed to create user: function not found: 'creation'",
      code: 4313,
    });
  });

  if (MODE === "embedded") {
    test("writes to another store at once, before the user", async () => {
      const source = { name: "other", type: "mongodb-atlas" };
      const service = (name) => `context.services.get("${name}").db("app").collection("calls")`;
      const definition = writeHooks(
        {
          creation: `exports = async (user) => {
            await ${service("other")}.insertOne({ event: "other" });
            await ${service("mongodb-atlas")}.insertOne({ event: "own" });
            if (user.data.email) throw new Error("refused");
          };`,
        },
        { others: `exports = () => ${service("other")}.find().toArray();` },
        { "data_sources/other/config.json": source },
      );
      const file = path.join(temporaryDirectory(), "other.sqlite");
      const app = await openApp({ definition, dataSources: { other: `sqlite:${file}` } });
      expect(await failure(register(app))).toMatchObject({ code: 4313 });
      const user = await app.logIn(anonymous);
      expect(await user.functions.others()).toHaveLength(2);
      expect(await user.functions.calls()).toHaveLength(1);
    });
  }
});
