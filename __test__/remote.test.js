"use strict";

// The client side of the protocol, against stub servers with responses that our server never
// sends.

const { execFile } = require("node:child_process");
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { promisify } = require("node:util");
const { PASSWORD, ROOT, Realm, customDataOf, logInNew, serve, temporaryDirectory } = require("./helpers.js");

const run = promisify(execFile);
const { App, Credentials, MetadataMode } = Realm;

const stubs = [];
const apps = [];

afterEach(async () => {
  await Promise.all(apps.splice(0).map((app) => app.close()));
  for (const stub of stubs.splice(0)) {
    stub.closeAllConnections();
    stub.close();
  }
});

const jwt = (claims) =>
  ["header", JSON.stringify({ exp: 2_000_000_000, iat: 1_000_000_000, ...claims }), "signature"]
    .map((part) => Buffer.from(part).toString("base64url"))
    .join(".");

const json = (status, body) => ({ status, type: "application/json", body: JSON.stringify(body) });

/**
 * Starts a server that chooses its response by the end of the path. Records the requests in
 * `asked`, and counts the connections.
 */
async function stub(answers) {
  const asked = [];
  let url;
  const all = {
    "/location": () => json(200, { hostname: url, ws_hostname: url.replace("http", "ws") }),
    "/login": () =>
      json(200, {
        access_token: jwt({ n: 1 }),
        refresh_token: jwt(),
        user_id: "u1",
        device_id: "d1",
        custom_data: null,
      }),
    "/auth/profile": () =>
      json(200, { user_id: "u1", type: "normal", identities: [{ id: "i", provider_type: "anon-user" }], data: {} }),
    "/auth/session": () => json(201, { access_token: jwt({ n: 2 }) }),
    ...answers,
  };
  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      const { method, headers } = request;
      const [pathname] = request.url.split("?");
      const call = { method, url: request.url, headers, body: Buffer.concat(chunks).toString(), response };
      asked.push(call);
      const [, answer] = Object.entries(all).find(([end]) => pathname.endsWith(end)) ?? [];
      const { status, type, body, more } = answer?.(call) ?? json(404, { error: "nothing here" });
      if (status !== "never") {
        response.writeHead(status, { ...(type && { "Content-Type": type }), ...more });
        response.end(body);
      }
    });
  });
  let connections = 0;
  server.on("connection", () => {
    connections += 1;
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  stubs.push(server);
  url = `http://127.0.0.1:${server.address().port}`;
  const paths = () => asked.map(({ method, url }) => `${method} ${url.replace("/api/client/v2.0", "")}`);
  return { url, asked, paths, connections: () => connections };
}

function open(options) {
  const app = new App({ id: "far", metadata: { mode: MetadataMode.InMemory }, logger: null, ...options });
  apps.push(app);
  return app;
}

const collectionOf = (user) => user.mongoClient("mongodb-atlas").db("d").collection("c");

test("requests the location once, and sends requests there over persistent connections", async () => {
  const elsewhere = await stub({ "/functions/call": () => json(200, { $numberInt: "5" }) });
  const front = await stub({
    "/location": () => json(200, { hostname: elsewhere.url, ws_hostname: "ws://x" }),
  });
  const app = open({ baseUrl: `${front.url}//`, id: "a/b c" });
  const user = await app.logIn(Credentials.anonymous());
  expect(await collectionOf(user).count()).toBe(5);
  expect(await user.callFunction("f", 1, "x", { at: new Date(5) })).toBe(5);
  await user.refreshCustomData();
  await user.logOut();
  expect(front.paths()).toEqual(["GET /app/a%2Fb%20c/location"]);
  expect(elsewhere.paths()).toEqual([
    "POST /app/a%2Fb%20c/auth/providers/anon-user/login",
    "GET /auth/profile",
    "POST /app/a%2Fb%20c/functions/call",
    "POST /app/a%2Fb%20c/functions/call",
    "POST /auth/session",
    "DELETE /auth/session",
  ]);
  const again = await app.logIn(Credentials.anonymous());
  for (let call = 0; call < 20; call++) {
    await expect(again.callFunction("f")).resolves.toBe(5);
  }
  // On a busy machine, a request may start before a connection is free again, and open another
  // one.
  expect(elsewhere.asked).toHaveLength(28);
  expect(elsewhere.connections()).toBeLessThanOrEqual(5);
  const [login, profile, count, call, refresh] = elsewhere.asked;
  expect(JSON.parse(login.body)).toMatchObject({ provider: "anon-user", options: { device: { sdk: "userkeep" } } });
  expect(login.headers).toMatchObject({ "content-type": "application/json", "userkeep-custom-data": "beside-token" });
  expect(profile.headers.authorization).toBe(`Bearer ${jwt({ n: 1 })}`);
  expect(JSON.parse(count.body)).toEqual({
    name: "count",
    service: "mongodb-atlas",
    arguments: [{ database: "d", collection: "c", query: {} }],
  });
  expect(JSON.parse(call.body)).toEqual({
    name: "f",
    arguments: [{ $numberInt: "1" }, "x", { at: { $date: { $numberLong: "5" } } }],
  });
  expect(refresh.headers.authorization).toBe(`Bearer ${jwt()}`);
});

test("requests the location again after an error", async () => {
  let answers = 0;
  const server = await stub({});
  const front = await stub({
    "/location": () => {
      answers += 1;
      return answers === 1
        ? json(503, { error: "not yet" })
        : json(200, { hostname: server.url, ws_hostname: "ws://x" });
    },
  });
  const app = open({ baseUrl: front.url });
  await expect(app.logIn(Credentials.anonymous())).rejects.toMatchObject({ message: "not yet", status: 503 });
  expect((await app.logIn(Credentials.anonymous())).id).toBe("u1");
  expect(answers).toBe(2);
});

test("a 401 refreshes the token and retries the request once", async () => {
  let refreshed = false;
  let wanted = 1;
  const server = await stub({
    "/auth/session": () => {
      refreshed = true;
      return json(201, { access_token: jwt({ n: 2 }) });
    },
    "/functions/call": ({ headers }) =>
      headers.authorization === `Bearer ${jwt({ n: wanted })}` ? json(200, null) : json(401, { error: "whatever" }),
  });
  const user = await open({ baseUrl: server.url }).logIn(Credentials.anonymous());
  expect(await collectionOf(user).findOne()).toBeNull();
  wanted = 2;
  expect(await collectionOf(user).findOne()).toBeNull();
  expect([refreshed, user.accessToken]).toEqual([true, jwt({ n: 2 })]);
  wanted = 3;
  const before = server.asked.length;
  await expect(collectionOf(user).findOne()).rejects.toMatchObject({ message: "whatever", code: 4351, status: 401 });
  expect(server.paths().slice(before)).toEqual([
    "POST /app/far/functions/call",
    "POST /auth/session",
    "POST /app/far/functions/call",
  ]);
  expect(user.isLoggedIn).toBe(true);
});

test("if the refresh fails, the call rejects with its own error, and the user stays logged in", async () => {
  const server = await stub({
    "/auth/session": () => json(401, { error: "invalid session", error_code: "InvalidSession" }),
    "/functions/call": () => json(401, { error: "access token expired", error_code: "InvalidSession" }),
    "/auth/api_keys": () => json(401, { error: "unauthorized" }),
  });
  const user = await open({ baseUrl: server.url }).logIn(Credentials.anonymous());
  await expect(collectionOf(user).find()).rejects.toMatchObject({ message: "access token expired", code: 4301 });
  await expect(user.refreshCustomData()).rejects.toMatchObject({ message: "invalid session", code: 4301 });
  expect(user.isLoggedIn).toBe(true);
  // As in the SDK, only a 401 for an API-key call, which sends the refresh token, logs the user
  // out.
  await expect(user.apiKeys.fetchAll()).rejects.toMatchObject({ message: "unauthorized" });
  expect(user.isLoggedIn).toBe(false);
});

test("errors have the SDK's codes and messages", async () => {
  let answer;
  const server = await stub({ "/functions/call": () => answer });
  const user = await open({ baseUrl: server.url }).logIn(Credentials.anonymous());
  const rejects = async (answered, error) => {
    answer = answered;
    await expect(collectionOf(user).find()).rejects.toMatchObject(error);
  };
  await rejects(json(400, { error: "e", error_code: "FunctionSyntaxError", link: "https://log" }), {
    message: "e",
    code: 4328,
    errorCode: "FunctionSyntaxError",
    status: 400,
    link: "https://log",
  });
  await rejects(json(418, { error: "e", error_code: "Teapot" }), { code: 4355, errorCode: "AppServerError" });
  await rejects(json(500, { error: "e" }), { message: "e", code: 4351 });
  await rejects(
    { ...json(429, { error: "slowly", error_code: "AppServerError" }), more: { "Retry-After": "7" } },
    { code: 4355, retryAfter: 7 },
  );
  await rejects(
    { status: 404, type: "text/html", body: "<p>nothing</p>" },
    { message: "http error code considered fatal: <p>nothing</p>. Client Error: 404", code: 4309 },
  );
  await rejects(
    { status: 502, type: "text/html", body: "x" },
    { message: expect.stringContaining("Server Error: 502") },
  );
  await rejects({ status: 200, type: "application/json", body: "{" }, { code: 4201 });
  await rejects(json(200, { $oid: "x" }), { code: 4201 });
  await rejects({ status: 200, type: "application/json", body: "[".repeat(100_000) }, { code: 4201 });
  answer = { status: 200 };
  expect(await collectionOf(user).findOne()).toBeNull();
  // A document with a field `error` is not an error.
  answer = json(200, { error: "a field" });
  expect(await collectionOf(user).findOne()).toEqual({ error: "a field" });
});

test("rejects an incomplete log-in response", async () => {
  let login;
  const server = await stub({ "/login": () => login });
  const app = open({ baseUrl: server.url });
  const whole = { access_token: jwt(), refresh_token: jwt(), user_id: "u", device_id: "d" };
  for (const [key, code, message] of [
    ["access_token", 4202, "Missing JSON key: access_token"],
    ["refresh_token", 4202, "refresh_token"],
    ["user_id", 4202, "user_id"],
    ["device_id", 4202, "device_id"],
  ]) {
    login = json(200, { ...whole, [key]: undefined });
    const refused = expect(app.logIn(Credentials.anonymous())).rejects;
    await refused.toMatchObject({ code, message: expect.stringContaining(message) });
  }
  for (const token of ["x", "a.b.c", "..", jwt({ exp: "soon" })]) {
    login = json(200, { ...whole, access_token: token });
    await expect(app.logIn(Credentials.anonymous())).rejects.toMatchObject({
      code: 4200,
      message: "Could not log in user: received malformed JWT",
    });
  }
  expect(app.currentUser).toBeNull();
});

test("reads custom data from the token if the backend does not support our header", async () => {
  const user_data = { _id: { $oid: "63c1b2a1f0e1d2c3b4a59687" }, at: { $date: { $numberLong: "5" } } };
  const tokens = { access_token: jwt({ user_data }), refresh_token: jwt(), user_id: "u1", device_id: "d1" };
  const server = await stub({ "/login": () => json(200, tokens) });
  const user = await open({ baseUrl: server.url }).logIn(Credentials.anonymous());
  expect(user.customData).toEqual({ _id: new Realm.BSON.ObjectId("63c1b2a1f0e1d2c3b4a59687"), at: new Date(5) });
});

test("an unreachable or slow backend is a transport error", async () => {
  const gone = await stub({});
  stubs.pop().close();
  const app = open({ baseUrl: gone.url });
  await expect(app.logIn(Credentials.anonymous())).rejects.toMatchObject({
    code: 4000,
    message: expect.stringMatching(
      new RegExp(`^request to ${gone.url}/api/client/v2.0/app/far/location failed, reason: .*refused`, "i"),
    ),
    cause: expect.objectContaining({ code: "ECONNREFUSED", message: expect.stringMatching(/refused/i) }),
  });
  const server = await stub({ "/functions/call": () => ({ status: "never" }) });
  const slow = open({ baseUrl: server.url, timeout: 300, id: "slow" });
  const user = await slow.logIn(Credentials.anonymous());
  const begun = Date.now();
  await expect(collectionOf(user).find()).rejects.toMatchObject({
    code: 4000,
    message: expect.stringContaining("failed, reason: the request took too long"),
    cause: expect.objectContaining({ code: "ETIMEDOUT" }),
  });
  expect(Date.now() - begun).toBeGreaterThanOrEqual(290);
  expect(Date.now() - begun).toBeLessThan(5000);
  // A timeout of 0 means the default.
  await open({ baseUrl: server.url, timeout: 0, id: "usual" }).logIn(Credentials.anonymous());
});

test("closing the app cancels the requests in flight", async () => {
  const server = await stub({ "/functions/call": () => ({ status: "never" }) });
  const app = open({ baseUrl: server.url });
  const user = await app.logIn(Credentials.anonymous());
  const call = collectionOf(user).find();
  const failed = expect(call).rejects.toThrow("The app has been closed");
  while (server.asked.length < 4) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const { response } = server.asked.at(-1);
  const cut = new Promise((resolve) => response.on("close", resolve));
  await app.close();
  await failed;
  await cut;
});

test("apps with one id and URL share users; stored users reject another URL", async () => {
  const { url } = await serve({ app: "far" });
  const one = open({ baseUrl: url });
  const two = open({ baseUrl: `${url}/` });
  const user = await logInNew(one);
  expect(two.currentUser.id).toBe(user.id);
  const baseFilePath = temporaryDirectory();
  const keeping = { metadata: undefined, baseFilePath };
  open({ baseUrl: url, ...keeping });
  expect(() => open({ baseUrl: "http://localhost:1", ...keeping })).toThrow("is open with other settings");
  const elsewhere = open({ baseUrl: "http://localhost:1" });
  expect(elsewhere.currentUser).toBeNull();
});

test("USERKEEP_BASE_URL selects a backend, and the program ends by itself", async () => {
  const { url } = await serve({ app: "far" });
  const directory = temporaryDirectory();
  const script = `
    const Realm = require(${JSON.stringify(ROOT)});
    (async () => {
      const app = new Realm.App({ id: "far", baseFilePath: ${JSON.stringify(directory)} });
      const user = await app.logIn(Realm.Credentials.anonymous());
      const collection = user.mongoClient("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data");
      await collection.insertOne({ userId: user.id, n: 1 });
      console.log((await user.refreshCustomData()).n);
      const own = new Realm.App({ id: "own", store: "memory:", logger: null });
      console.log((await own.logIn(Realm.Credentials.anonymous())).id !== user.id);
    })();`;
  const env = { ...process.env, USERKEEP_BASE_URL: url };
  const { stdout, stderr } = await run(process.execPath, ["-e", script], { env, timeout: 20_000 });
  expect(stdout).toBe("1\ntrue\n");
  // The backend logs about its definition in its own process.
  expect(stderr).toContain(`userkeep info: app 'far' uses the backend at ${url}\n`);
  expect(stderr).not.toContain("error");
  expect(fs.readdirSync(path.join(directory, ".userkeep")).sort()).toEqual([
    ".gitignore",
    "far.session",
    "far.session.lock",
  ]);
});

test("connects over TLS with a certificate of NODE_EXTRA_CA_CERTS", async () => {
  const directory = temporaryDirectory();
  const file = (name) => path.join(directory, name);
  const names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"];
  const subject = ["-subj", "/CN=localhost", ...names];
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  await run("openssl", [
    "req",
    "-x509",
    "-days",
    "2",
    ...key,
    "-keyout",
    file("key.pem"),
    "-out",
    file("cert.pem"),
    ...subject,
  ]);
  const { url } = await serve({ app: "far", tlsCert: file("cert.pem"), tlsKey: file("key.pem") });
  expect(url).toMatch(/^https:/);
  await expect(open({ baseUrl: url }).logIn(Credentials.anonymous())).rejects.toMatchObject({
    code: 4000,
    message: expect.stringMatching(/certificate|issuer/i),
  });
  process.env.NODE_EXTRA_CA_CERTS = file("cert.pem");
  try {
    const app = open({ baseUrl: url, timeout: 10_000 });
    const user = await logInNew(app);
    await customDataOf(user).insertOne({ userId: user.id });
    expect((await user.refreshCustomData()).userId).toBe(user.id);
    expect((await app.logIn(Credentials.emailPassword(user.profile.email, PASSWORD))).id).toBe(user.id);
    process.env.NODE_EXTRA_CA_CERTS = file("missing.pem");
    expect(() => open({ baseUrl: url, id: "other" })).toThrow("NODE_EXTRA_CA_CERTS cannot be read");
  } finally {
    delete process.env.NODE_EXTRA_CA_CERTS;
  }
  const wrong = { app: "far", tlsCert: file("key.pem"), tlsKey: file("key.pem") };
  await expect(serve(wrong)).rejects.toThrow(/cannot use TLS: .*key\.pem: the file contains no certificate/);
  await expect(serve({ app: "far", tlsCert: file("cert.pem") })).rejects.toThrow("needs both 'tlsCert' and 'tlsKey'");
});
