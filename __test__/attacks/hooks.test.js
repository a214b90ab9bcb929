"use strict";

// Clients who are not logged in attack through the functions that the backend calls, and functions
// behave badly.

const { PASSWORD, Realm, openApp } = require("../helpers.js");
const { INSERT_CUSTOM_DATA, RECORD, customDataOf, eventsOf, writeHooks } = require("../hooks-definition.js");
const { range } = require("./support.js");

const { Credentials } = Realm;
const email = "ada@example.com";

const open = (hooks, functions, options) => openApp({ definition: writeHooks(hooks, functions), ...options });
const failure = (promise) =>
  promise.then(
    () => "nothing failed",
    ({ message, code }) => ({ message, code }),
  );
const logIn = (app, password = PASSWORD) => app.logIn(Credentials.emailPassword(email, password));
const register = (app, name = email) => app.emailPasswordAuth.registerUser({ email: name, password: PASSWORD });

describe("a function that hangs", () => {
  const late = { message: "execution time limit exceeded", code: 4341 };
  const functions = { timeLimit: 1500 };

  test.each([
    ["waits for ever", "new Promise(() => {})"],
    ["loops for ever", "(() => { for (;;); })()"],
    ["returns a thenable that never settles", "({ then() {} })"],
  ])("ends at its time limit if it %s", async (_name, value) => {
    const hook = `exports = () => ${value};`;
    const app = await open({ authentication: hook, confirmation: hook, reset: hook }, {}, { functions });
    expect(await failure(app.logIn(Credentials.function({})))).toEqual(late);
    expect(await failure(register(app))).toEqual({ message: `failed to confirm user "${email}"`, code: 4347 });
    expect((await app.logIn(Credentials.anonymous(false))).isLoggedIn).toBe(true);
  });

  test("creates no user, and leaves none of its writes", async () => {
    const creation = `exports = async (event) => {
      if (event.identities[0].provider_type === "anon-user") return;
      ${RECORD}
      await new Promise(() => {});
    };`;
    const app = await open({ creation }, {}, { functions });
    expect(await failure(register(app))).toEqual({ ...late, message: `failed to create user: ${late.message}` });
    expect(await failure(logIn(app))).toMatchObject({ code: 4349 });
    expect(await eventsOf(app)).toEqual([]);
  });

  test("delays neither the calls of users nor other log-ins, and its calls are bounded", async () => {
    const hooks = { authentication: "exports = () => new Promise(() => {});" };
    const app = await open(hooks, { sum: "exports = (a, b) => a + b;" }, { functions: { timeLimit: 5000 } });
    await register(app);
    const user = await logIn(app);
    expect(await user.functions.sum(1, 2)).toBe(3);
    const attempts = range(400).map(() => failure(app.logIn(Credentials.function({}))));
    const begun = performance.now();
    await Promise.all(range(20).map((n) => user.functions.sum(n, 1)));
    await logIn(app);
    expect(performance.now() - begun).toBeLessThan(4000);
    const outcomes = new Set((await Promise.all(attempts)).map(({ code }) => code));
    // Over HTTP, a network has a few such requests at once. The others wait, and the rate limit
    // applies after the first failures.
    expect([...outcomes].sort()).toEqual([4341, 4355]);
  }, 240_000);
});

describe("a function that throws or returns something odd", () => {
  test.each([
    ["an object with a failing getter", "throw { get message() { throw new Error('inner'); } }"],
    ["a proxy that fails", "throw new Proxy({}, { get() { throw 1; }, has() { throw 2; }, ownKeys() { throw 3; } })"],
    ["null", "throw null"],
    ["a symbol", "throw Symbol('s')"],
    ["an error whose message is an object", "const e = new Error(); e.message = { a: 1 }; throw e"],
    ["a cycle", "const a = {}; a.a = a; throw a"],
    ["an answer that cannot be encoded", "const a = {}; a.id = a; return a"],
    ["a thenable that throws", "return { then() { throw new Error('thenable'); } }"],
    [
      "an error that pretends to end the session",
      "throw Object.assign(new Error('x'), { name: 'FunctionError', errorCode: 'InvalidSession' })",
    ],
  ])("%s is only a failed log-in", async (_name, statement) => {
    const app = await open({ authentication: `exports = () => { ${statement}; };` });
    expect(await failure(app.logIn(Credentials.function({})))).toEqual({ message: expect.any(String), code: 4346 });
    expect((await app.logIn(Credentials.anonymous(false))).isLoggedIn).toBe(true);
  });

  test("objects with a method then are awaited", async () => {
    const thenable = (value) => `exports = () => ({ then(resolve) { setTimeout(() => resolve(${value}), 5); } });`;
    const app = await open({
      authentication: thenable("{ id: 'x', name: { then(resolve) { resolve('X'); } } }"),
      confirmation: thenable("{ status: 'success' }"),
    });
    expect((await app.logIn(Credentials.function({}))).profile).toEqual({ name: "X" });
    await register(app);
    expect((await logIn(app)).isLoggedIn).toBe(true);
  });

  test("a status is compared exactly", async () => {
    for (const answer of [
      "[{ status: 'success' }]",
      "({ status: ['success'] })",
      "'success'",
      "({ Status: 'success' })",
    ]) {
      const app = await open({ confirmation: `exports = () => ${answer};` });
      expect(await failure(register(app))).toMatchObject({ code: 4347 });
    }
  });
});

test("an authentication function cannot log in as a user of another provider", async () => {
  const app = await open({ authentication: "exports = ({ id }) => id;", creation: INSERT_CUSTOM_DATA });
  await register(app);
  const ada = await logIn(app);
  const ids = [email, ada.id, ada.identities[0].id, `local-userpass:${email}`, `anon-user:${ada.id}`];
  for (const id of ids) {
    const user = await app.logIn(Credentials.function({ id }));
    expect(user.id).not.toBe(ada.id);
    expect(user.customData).toMatchObject({ userId: user.id });
    expect(user.profile.email).toBeUndefined();
  }
});

test("ids that are not well-formed Unicode are refused, because different ones would be one user", async () => {
  const app = await open({ authentication: "exports = ({ code }) => 'a' + String.fromCharCode(code);" });
  const refused = { message: expect.stringContaining("an id that is not well-formed Unicode"), code: 4346 };
  for (const code of [0xd800, 0xdfff]) {
    expect(await failure(app.logIn(Credentials.function({ code })))).toEqual(refused);
  }
  expect((await app.logIn(Credentials.function({ code: 0xd7ff }))).isLoggedIn).toBe(true);
});

test("a creation function cannot write to the backend's own users", async () => {
  const app = await open({
    creation: `exports = async (user) => {
      const users = context.services.get("mongodb-atlas").db("userkeep_test-app").collection("users");
      await users.updateMany({}, { $set: { disabled: false } });
    };`,
  });
  expect(await failure(app.logIn(Credentials.anonymous(false)))).toMatchObject({
    message: expect.stringMatching(/^failed to create user: no rule exists/),
  });
});

test("the time of an answer does not show whose functions run", async () => {
  const slow = `exports = async (event) => {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    ${RECORD}
    return { status: "pending" };
  };`;
  const app = await open({ confirmation: slow, reset: slow });
  await register(app);
  const timed = async (promise) => {
    const begun = performance.now();
    const { code } = await failure(promise);
    return { code, isFast: performance.now() - begun < 900 };
  };
  const wrong = (name) => app.logIn(Credentials.emailPassword(name, "wrong passw0rd"));
  expect(await timed(wrong(email))).toEqual({ code: 4349, isFast: true });
  expect(await timed(wrong("unknown@example.com"))).toEqual({ code: 4349, isFast: true });
  const auth = app.emailPasswordAuth;
  const reset = (name) => auth.callResetPasswordFunction({ email: name, password: "wrong passw0rd" });
  expect(await timed(reset("unknown@example.com"))).toEqual({ code: 4344, isFast: true });
  // A user who is not confirmed looks unknown.
  expect(await timed(reset(email))).toEqual({ code: 4344, isFast: true });
  expect(await timed(auth.retryCustomConfirmation({ email: "unknown@example.com" }))).toMatchObject({ isFast: true });
  expect(await eventsOf(app)).toHaveLength(1);
});

describe("a token that is used several times at once", () => {
  const pending = `exports = async (event) => { ${RECORD} return { status: "pending" }; };`;

  test("confirms once, and the creation function's writes are there once", async () => {
    const creation = `exports = async (user) => {
      if (user.identities[0].provider_type === "anon-user") return;
      ${INSERT_CUSTOM_DATA.replace("exports =", "const insert =")}
      await insert(user);
    };`;
    const app = await open({ confirmation: pending, creation });
    await register(app);
    const [token] = await eventsOf(app);
    const outcomes = await Promise.all(range(8).map(() => failure(app.emailPasswordAuth.confirmUser(token))));
    const invalid = { message: "userpass token is expired or invalid", code: 4353 };
    expect(outcomes.filter((outcome) => outcome === "nothing failed")).toHaveLength(1);
    expect(outcomes.filter((outcome) => outcome !== "nothing failed")).toEqual(Array(7).fill(invalid));
    const user = await logIn(app);
    expect(await customDataOf(user)).toHaveLength(1);
  });

  test("sets one password", async () => {
    const app = await open({ reset: pending });
    await register(app);
    await app.emailPasswordAuth.callResetPasswordFunction({ email, password: "ignored" });
    const [{ token, tokenId }] = await eventsOf(app);
    const passwords = range(6).map((n) => `passw0rd number ${n}`);
    const reset = (password) => app.emailPasswordAuth.resetPassword({ token, tokenId, password });
    const outcomes = await Promise.all(passwords.map((password) => failure(reset(password))));
    const winners = passwords.filter((_, n) => outcomes[n] === "nothing failed");
    expect(winners).toHaveLength(1);
    expect(outcomes.filter((outcome) => outcome !== "nothing failed").map(({ code }) => code)).toEqual(
      Array(5).fill(4353),
    );
    expect((await logIn(app, winners[0])).isLoggedIn).toBe(true);
    expect(await failure(logIn(app))).toMatchObject({ code: 4349 });
  });
});

test("users whose writes conflict for good are not created by halves", async () => {
  const creation = `exports = async (user) => {
    const db = context.services.get("mongodb-atlas").db("app");
    const counters = db.collection("counters");
    const { n } = await counters.findOneAndUpdate(
      { _id: "users" }, { $inc: { n: 1 } }, { upsert: true, returnNewDocument: true });
    await new Promise((resolve) => setTimeout(resolve, 20));
    await db.collection("calls").insertOne({ event: n });
  };`;
  const app = await open({ creation });
  const attempts = range(8).map(() =>
    app.logIn(Credentials.anonymous(false)).then(
      () => "created",
      ({ code }) => code,
    ),
  );
  const outcomes = await Promise.all(attempts);
  const created = outcomes.filter((outcome) => outcome === "created").length;
  expect(created).toBeGreaterThan(0);
  expect(outcomes.filter((outcome) => outcome !== "created").every((code) => [4311, 4313].includes(code))).toBe(true);
  const numbers = await eventsOf(app);
  // The reader is one more user.
  expect(numbers.toSorted((a, b) => a - b)).toEqual(range(created + 1).map((n) => n + 1));
});
