"use strict";

// The log of an app: its entries, their bounds, and the links of errors.

const http = require("node:http");
const {
  MODE,
  PASSWORD,
  Realm,
  STORE,
  logInNew,
  openApp,
  openBackend,
  serve,
  writeDefinition,
} = require("./helpers.js");

const SOURCES = {
  "functions/greet.js": `exports = (name) => { console.log("hello", name); console.warn("careful"); return name; };`,
  "functions/fail.js": `exports = function fail() { console.log("before"); throw new TypeError("boom"); };`,
  "functions/quiet.js": "exports = () => 1;",
  "functions/wait.js": "exports = () => new Promise((resolve) => setTimeout(resolve, 3000));",
  "functions/cut.js": "exports = () => console.log('x'.repeat(495) + context.values.get('key'));",
  "functions/flood.js": `exports = (lines, size) => {
    for (let line = 0; line < lines; line++) console.log(String(line) + "x".repeat(size));
  };`,
  "functions/tell.js": `exports = (options, token) => {
    console.log("the key is " + context.values.get("key") + " and the token " + token);
    throw new Error("cannot use " + context.values.get("key"));
  };`,
  "functions/config.json": [{ name: "greet" }, { name: "fail" }, { name: "quiet", disable_arg_logs: true }],
  "values/key.json": { name: "key", value: "keyText", from_secret: true },
};

const SECRETS = { keyText: "secret-of-the-operator" };
const TOKEN = `eyJ${"a".repeat(20)}.eyJ${"b".repeat(20)}.${"c".repeat(20)}`;

/** Opens an app with functions. `logs(query, count)` waits for a number of entries. */
async function open(options = {}) {
  const definition = writeDefinition(SOURCES);
  const app = await openApp({ definition, secrets: SECRETS, ...options });
  const backend = await openBackend({ definition, id: app.id, store: STORE, secrets: SECRETS });
  const logs = async (query = {}, count = 1) => {
    const deadline = Date.now() + 10_000;
    for (;;) {
      const found = await backend.admin.logs(query);
      if (found.length >= count || Date.now() > deadline) {
        return found;
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  return { app, backend, definition, logs };
}

/** Returns the error of a promise. */
const errorOf = (promise) =>
  promise.then(
    () => undefined,
    (error) => error,
  );

describe("an entry", () => {
  test("of a call has the function, its arguments, its console lines and the user", async () => {
    const { app, logs } = await open();
    const user = await logInNew(app);
    const before = Date.now();
    await user.functions.greet("ada");
    const [entry] = await logs({ type: "function" });
    expect(entry).toEqual({
      id: expect.any(Object),
      type: "FUNCTION",
      requestId: expect.stringMatching(/^[0-9a-f]{24}$/),
      started: expect.any(Date),
      completed: expect.any(Date),
      durationMS: expect.any(Number),
      user: user.id,
      ...(MODE === "remote" && { remoteAddress: "127.0.0.1" }),
      name: "greet",
      arguments: ["ada"],
      status: 200,
      messages: [
        { level: "info", text: "hello ada" },
        { level: "warn", text: "careful" },
      ],
    });
    expect(entry.started.getTime()).toBeGreaterThanOrEqual(before - 1000);
    expect(entry.completed.getTime()).toBeGreaterThanOrEqual(entry.started.getTime());
  });

  test("of a failed call has the error and the stack, once", async () => {
    const { app, logs } = await open();
    const user = await logInNew(app);
    await expect(user.functions.fail()).rejects.toThrow("TypeError: boom");
    const [entry, ...others] = await logs({ errors: true });
    expect(entry).toMatchObject({
      type: "FUNCTION",
      name: "fail",
      status: 400,
      error: "TypeError: boom",
      errorCode: "FunctionExecutionError",
      messages: [{ level: "info", text: "before" }],
      stack: expect.stringMatching(/functions\/fail\.js:1:/),
    });
    expect(others).toEqual([]);
  });

  test("of a function with disable_arg_logs has no arguments", async () => {
    const { app, logs } = await open();
    const user = await logInNew(app);
    await user.functions.quiet("private");
    const [entry] = await logs({ type: "function" });
    expect(entry.name).toBe("quiet");
    expect(JSON.stringify(entry)).not.toContain("private");
  });

  test("of a log-in names the provider, also if it fails", async () => {
    const { app, logs } = await open();
    const user = await logInNew(app);
    const { email } = user.profile;
    const wrong = Realm.Credentials.emailPassword({ email, password: "wrong-password" });
    await expect(app.logIn(wrong)).rejects.toThrow();
    const [failed, succeeded] = await logs({ type: "auth" }, 2);
    expect(succeeded).toMatchObject({ type: "AUTH", event: "login", provider: "local-userpass", user: user.id });
    expect(failed).toMatchObject({ type: "AUTH", event: "login", errorCode: "InvalidPassword", status: 401 });
    expect(JSON.stringify([failed, succeeded])).not.toMatch(/wrong-password|passw0rd/);
  });

  test("of a failed request has its service and its function", async () => {
    const { app, logs } = await open();
    const user = await logInNew(app);
    const forbidden = user.mongoClient("mongodb-atlas").db("none").collection("none");
    await expect(forbidden.insertOne({ password: PASSWORD })).rejects.toThrow();
    await expect(user.callFunction("nothing")).rejects.toThrow("function not found");
    const [unknown, denied] = await logs({ errors: true }, 2);
    expect(denied).toMatchObject({
      type: "SERVICE_FUNCTION",
      service: "mongodb-atlas",
      name: "insertOne",
      user: user.id,
    });
    expect(unknown).toMatchObject({ type: "FUNCTION", name: "nothing", errorCode: "FunctionNotFound", user: user.id });
    expect(JSON.stringify(denied)).not.toContain(PASSWORD);
  });
});

describe("secrets", () => {
  test("are in no entry: fields with passwords, tokens, and the app's secrets", async () => {
    const { app, logs } = await open();
    const user = await logInNew(app);
    const options = { password: "hunter2", nested: [{ apiKey: "abc123", name: "kept" }] };
    await expect(user.functions.tell(options, TOKEN)).rejects.toThrow();
    const [entry] = await logs({ type: "function" });
    expect(entry.arguments).toEqual([{ password: "***", nested: [{ apiKey: "***", name: "kept" }] }, "***"]);
    expect(entry.messages[0].text).toBe("the key is *** and the token ***");
    expect(entry.error).toBe("cannot use ***");
    expect(JSON.stringify(entry)).not.toMatch(/secret-of|hunter2|abc123|eyJ/);
  });
});

test("a line that is cut in the middle of a secret does not contain its beginning", async () => {
  const { app, logs } = await open();
  const user = await logInNew(app);
  await user.functions.cut();
  const [{ messages }] = await logs({ type: "function" });
  expect(messages[0].text).toBe(`${"x".repeat(495)}***`);
});

describe("a query", () => {
  test("narrows by type, failure, user, time, request and number", async () => {
    const { app, logs } = await open();
    const [ada, bob] = [await logInNew(app), await logInNew(app)];
    await ada.functions.greet("a");
    const between = (await logs({ type: "function", user: ada.id }))[0].completed;
    await new Promise((resolve) => setTimeout(resolve, 20));
    await bob.functions.greet("b");
    await errorOf(bob.functions.fail());
    const all = await logs({ type: ["function"] }, 3);
    expect(all.map(({ name, user }) => [name, user])).toEqual([
      ["fail", bob.id],
      ["greet", bob.id],
      ["greet", ada.id],
    ]);
    expect(await logs({ user: ada.id, type: "FUNCTION" })).toHaveLength(1);
    expect(await logs({ errors: true })).toHaveLength(1);
    expect((await logs({ from: between, type: "function" }, 2)).map(({ user }) => user)).toEqual([bob.id, bob.id]);
    expect((await logs({ to: between.toISOString(), type: "function" })).map(({ user }) => user)).toEqual([ada.id]);
    expect(await logs({ limit: 1 })).toHaveLength(1);
    expect(await logs({ request: all[0].requestId })).toEqual([all[0]]);
    expect(await logs({ request: `https://app.example/logs?co_id=${all[0].requestId}` })).toEqual([all[0]]);
  });

  test("rejects wrong options", async () => {
    const { backend } = await open();
    await expect(backend.admin.logs({ limit: 0 })).rejects.toThrow("'limit'");
    await expect(backend.admin.logs({ from: "yesterday" })).rejects.toThrow("'from'");
    await expect(backend.admin.logs({ type: 1 })).rejects.toThrow("'type'");
  });

  test("follows the log", async () => {
    const { app, backend } = await open();
    const user = await logInNew(app);
    const followed = backend.admin.followLogs({ type: "function" });
    const first = followed.next();
    await user.functions.greet("now");
    expect((await first).value).toMatchObject({ name: "greet", arguments: ["now"] });
    const second = followed.next();
    await user.functions.quiet();
    expect((await second).value).toMatchObject({ name: "quiet" });
    await followed.return();
  });
});

describe("a function that floods the log", () => {
  test("gets 25 lines of 512 bytes, and the others are counted", async () => {
    const { app, logs } = await open();
    const user = await logInNew(app);
    await user.functions.flood(10_000, 5000);
    const [entry] = await logs({ type: "function" });
    expect(entry.messages).toHaveLength(25);
    expect(entry.droppedMessages).toBe(9975);
    expect(entry.messages.at(-1).text).toMatch(/^9999x+$/);
    expect(Math.max(...entry.messages.map(({ text }) => Buffer.byteLength(text)))).toBe(512);
  });

  test("does not store large arguments", async () => {
    const { app, logs } = await open();
    const user = await logInNew(app);
    await user.functions.greet("x".repeat(100_000));
    const [entry] = await logs({ type: "function" });
    expect(entry.arguments).toBeUndefined();
    expect(entry.argumentBytes).toBeGreaterThan(100_000);
    expect(JSON.stringify(entry).length).toBeLessThan(4000);
  });

  test("keeps the log within its size", async () => {
    const bytes = 100_000;
    const { app, backend, logs } = await open({ logRetention: { bytes } });
    const user = await logInNew(app);
    for (let round = 0; round < 5; round++) {
      await Promise.all(Array.from({ length: 10 }, () => user.functions.flood(25, 600)));
      await new Promise((resolve) => setTimeout(resolve, 150));
    }
    // Each entry has about 14 kB.
    const found = await logs({}, 2);
    expect(found.length).toBeGreaterThan(1);
    expect(found.length).toBeLessThan(10);
    expect(found.map(({ name }) => name)).toContain("flood");
    await backend.close();
  });

  test("writes nothing without retention", async () => {
    const { app, logs } = await open({ logRetention: { bytes: 0 } });
    const user = await logInNew(app);
    await user.functions.greet("ada");
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(await logs({}, 0)).toEqual([]);
  });
});

describe("an error over HTTP", () => {
  /** Sends a request, and resolves to `{ status, headers, body }`. */
  const send = (url, { body, ...options }) =>
    new Promise((resolve, reject) => {
      const request = http.request(url, options, (response) => {
        const chunks = [];
        response.on("data", (chunk) => chunks.push(chunk));
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString();
          resolve({ status: response.statusCode, headers: response.headers, body: text && JSON.parse(text) });
        });
      });
      request.on("error", reject).end(body);
    });

  const JSON_TYPE = { "Content-Type": "application/json" };

  async function openServer() {
    const definition = writeDefinition(SOURCES);
    const server = await serve({ definition, secrets: SECRETS });
    const backend = await openBackend({ definition, store: STORE, secrets: SECRETS });
    const base = `${server.url}/api/client/v2.0/app/test-app`;
    const find = async (link) => {
      const deadline = Date.now() + 10_000;
      for (;;) {
        const found = await backend.admin.logs({ request: link });
        if (found.length > 0 || Date.now() > deadline) {
          return found;
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };
    return { server, backend, base, find };
  }

  test("has a link and a header that find its entry", async () => {
    const { server, base, find } = await openServer();
    const requests = [
      [`${base}/auth/providers/none/login`, { method: "POST", headers: JSON_TYPE, body: "{}" }, "AUTH"],
      [`${base}/auth/providers/anon-user/login`, { method: "POST", headers: JSON_TYPE, body: "not JSON" }, "AUTH"],
      [`${server.url}/api/client/v2.0/auth/profile`, { headers: { Authorization: "Bearer none" } }, "AUTH"],
      [`${base}/functions/call`, { method: "POST", headers: { Authorization: "Bearer x" }, body: "{}" }, "FUNCTION"],
      [`${server.url}/api/client/v2.0/app/other/location`, {}, "API"],
    ];
    for (const [url, options, type] of requests) {
      const { status, headers, body } = await send(url, options);
      expect(status).toBeGreaterThanOrEqual(400);
      expect(body.link).toMatch(new RegExp(`^${server.url}/logs\\?co_id=[0-9a-f]{24}$`));
      expect(headers["x-appservices-request-id"]).toBe(body.link.slice(-24));
      expect(headers["x-request-id"]).toBe(headers["x-appservices-request-id"]);
      expect(await find(body.link)).toEqual([
        expect.objectContaining({ type, status, error: body.error, remoteAddress: "127.0.0.1" }),
      ]);
    }
  });

  test("leaves an entry also if the client hangs up", async () => {
    const { server, backend } = await openServer();
    const app = new Realm.App({ id: "test-app", baseUrl: server.url, logger: null, metadata: { mode: "inMemory" } });
    const user = await logInNew(app);
    const controller = new AbortController();
    const call = fetch(`${server.url}/api/client/v2.0/app/test-app/functions/call`, {
      method: "POST",
      signal: controller.signal,
      headers: { Authorization: `Bearer ${user.accessToken}`, ...JSON_TYPE },
      body: JSON.stringify({ name: "wait", arguments: [] }),
    });
    await new Promise((resolve) => setTimeout(resolve, 500));
    controller.abort();
    await expect(call).rejects.toThrow("aborted");
    let entries = [];
    for (let round = 0; entries.length === 0 && round < 100; round++) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      entries = await backend.admin.logs({ errors: true });
    }
    expect(entries).toEqual([expect.objectContaining({ name: "wait", status: 499, user: user.id })]);
    expect(entries[0].error).toMatch(/^canceled/);
    await app.close();
  });

  test("reaches the program with its link", async () => {
    const { server, find } = await openServer();
    const app = new Realm.App({ id: "test-app", baseUrl: server.url, logger: null, metadata: { mode: "inMemory" } });
    const user = await logInNew(app);
    const error = await errorOf(user.functions.fail());
    expect(error.message).toBe("TypeError: boom");
    expect(await find(error.link)).toEqual([expect.objectContaining({ name: "fail", user: user.id })]);
    await app.close();
  });

  test("cannot fill the log with requests of clients without a user", async () => {
    const { server, backend, find } = await openServer();
    const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
    const attempt = () =>
      send(`${server.url}/api/client/v2.0/auth/profile`, { agent, headers: { Authorization: "Bearer none" } });
    const answers = [];
    for (let round = 0; round < 150; round++) {
      answers.push(...(await Promise.all(Array.from({ length: 8 }, attempt))));
    }
    agent.destroy();
    expect(await find(answers[0].body.link)).toHaveLength(1);
    // More than 100 at once are not kept, and have no link. An entry counts them.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const stored = await backend.admin.logs({ limit: 10_000 });
    expect(stored.length).toBeGreaterThanOrEqual(100);
    expect(stored.length).toBeLessThan(300);
    const linked = answers.filter(({ body }) => body.link !== undefined);
    expect(linked.length).toBe(stored.filter(({ leftOut }) => leftOut === undefined).length);
    expect(stored.find(({ leftOut }) => leftOut > 0)).toMatchObject({ remoteAddress: "127.0.0.1", status: 429 });
    // A user of the same network has a share of the log too.
    const app = new Realm.App({ id: "test-app", baseUrl: server.url, logger: null, metadata: { mode: "inMemory" } });
    const user = await logInNew(app);
    const error = await errorOf(user.functions.fail());
    expect(await find(error.link)).toEqual([expect.objectContaining({ name: "fail", user: user.id })]);
    await app.close();
  });
});
