"use strict";

// The wire protocol of `serve`, and the commands serve, init and check.

const { execFile, spawn } = require("node:child_process");
const crypto = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { promisify } = require("node:util");
const {
  DATABASE,
  COLLECTION,
  PASSWORD,
  QUICKSTART,
  ROOT,
  Realm,
  eventually,
  openDefinition,
  readAndWriteAll,
  temporaryDirectory,
  writeDefinition,
} = require("./helpers.js");

/** The link in an error, which the operator looks up in the log. */
const LINK = expect.stringMatching(/^http:.*\/logs\?co_id=[0-9a-f]{24}$/);

const CLI = path.join(ROOT, "bin/userkeep.js");
const run = promisify(execFile);

let server;

const base = () => `${server.url}/api/client/v2.0`;

async function send(method, route, { token, body, headers } = {}) {
  const answer = await fetch(base() + route, {
    method,
    headers: { ...(token && { Authorization: `Bearer ${token}` }), ...headers },
    body: body === undefined || typeof body === "string" ? body : JSON.stringify(body),
  });
  const text = await answer.text();
  return {
    status: answer.status,
    type: answer.headers.get("content-type"),
    body: text === "" ? undefined : JSON.parse(text),
  };
}

beforeEach(async () => {
  server = await Realm.serve({
    app: "wire-app",
    definition: QUICKSTART,
    store: "memory:",
    port: 0,
    logger: null,
    maxBodySize: 100_000,
  });
});

afterEach(() => server.close());

async function logIn() {
  const { body } = await send("POST", "/app/wire-app/auth/providers/anon-user/login");
  return body;
}

test("each endpoint responds as the clients expect", async () => {
  expect(await send("GET", "/app/wire-app/location")).toEqual({
    status: 200,
    type: "application/json",
    body: {
      deployment_model: "GLOBAL",
      location: "US-VA",
      hostname: server.url,
      ws_hostname: server.url.replace("http", "ws"),
    },
  });
  const email = { email: "a@example.com", password: PASSWORD };
  expect(await send("POST", "/app/wire-app/auth/providers/local-userpass/register", { body: email })).toMatchObject({
    status: 201,
    type: "application/json",
  });
  expect(await send("POST", "/app/wire-app/auth/providers/local-userpass/register", { body: email })).toEqual({
    status: 409,
    type: "application/json",
    body: { error: "name already in use", error_code: "AccountNameInUse", link: LINK },
  });
  const device = { deviceId: { $oid: "63c1b2a1f0e1d2c3b4a59687" } };
  const login = await send("POST", "/app/wire-app/auth/providers/local-userpass/login", {
    body: { username: email.email, password: PASSWORD, options: { device } },
  });
  expect(login).toEqual({
    status: 200,
    type: "application/json",
    body: {
      access_token: expect.any(String),
      refresh_token: expect.any(String),
      user_id: expect.stringMatching(/^[0-9a-f]{24}$/),
      device_id: "63c1b2a1f0e1d2c3b4a59687",
    },
  });
  const { access_token: access, refresh_token: refresh, user_id: id } = login.body;
  expect(await send("GET", "/auth/profile", { token: access })).toMatchObject({
    status: 200,
    body: {
      user_id: id,
      type: "normal",
      identities: [{ provider_type: "local-userpass" }],
      data: { email: email.email },
    },
  });
  const call = (name, argument) =>
    send("POST", "/app/wire-app/functions/call", {
      token: access,
      body: {
        name,
        service: "mongodb-atlas",
        arguments: [{ database: DATABASE, collection: COLLECTION, ...argument }],
      },
    });
  const document = {
    userId: id,
    int: 1,
    date: { $date: "2020-01-01T00:00:00Z" },
    long: { $numberLong: "5" },
    double: 1.5,
  };
  expect(await call("insertOne", { document })).toMatchObject({
    status: 200,
    body: { insertedId: { $oid: expect.any(String) } },
  });
  expect(await call("findOne", { query: { int: { $numberDouble: "1.0" } } })).toMatchObject({
    body: {
      int: { $numberInt: "1" },
      date: { $date: { $numberLong: "1577836800000" } },
      long: { $numberLong: "5" },
      double: { $numberDouble: "1.5" },
    },
  });
  expect(await call("findOne", { query: { int: 2 } })).toEqual({ status: 200, type: "application/json", body: null });
  expect(await call("count", {})).toMatchObject({ body: { $numberLong: "1" } });
  const session = await send("POST", "/auth/session", { token: refresh });
  expect(JSON.parse(Buffer.from(session.body.access_token.split(".")[1], "base64url")).user_data).toMatchObject({
    userId: id,
  });
  expect(await send("DELETE", "/auth/session", { token: refresh })).toEqual({
    status: 204,
    type: null,
    body: undefined,
  });
  expect(await send("POST", "/auth/session", { token: refresh })).toMatchObject({
    status: 401,
    body: { error: "invalid session: failed to find refresh token", error_code: "InvalidSession" },
  });
});

test("the published keys verify tokens", async () => {
  const { access_token: token } = await logIn();
  const { body } = await send("GET", "/app/wire-app/auth/jwks");
  const [header, payload, signature] = token.split(".");
  const { kid } = JSON.parse(Buffer.from(header, "base64url"));
  const key = crypto.createPublicKey({ key: body.keys.find((key) => key.kid === kid), format: "jwk" });
  expect(crypto.verify(null, Buffer.from(`${header}.${payload}`), key, Buffer.from(signature, "base64url"))).toBe(true);
});

test("rejects malformed requests with a code, and does not echo their contents", async () => {
  const { access_token: token } = await logIn();
  const call = (body) => send("POST", "/app/wire-app/functions/call", { token, body });
  for (const body of [
    "{ secret",
    "[]",
    '"text"',
    { name: 1 },
    { name: "find", arguments: {} },
    { name: "find", service: "mongodb-atlas", arguments: [] },
    { name: "find", service: "mongodb-atlas", arguments: [{ query: { _id: { $oid: "x" } } }] },
  ]) {
    const answer = await call(body);
    expect(answer).toMatchObject({ status: 400, type: "application/json", body: { error_code: expect.any(String) } });
    expect(answer.body.error).not.toContain("secret");
  }
  expect(await call("x".repeat(100_001))).toMatchObject({
    status: 413,
    body: { error: expect.stringContaining("larger than 100000 bytes") },
  });
  for (const bad of ["x", "a.b.c", `${token}x`]) {
    expect(await send("GET", "/auth/profile", { token: bad })).toMatchObject({
      status: 401,
      body: { error_code: "InvalidSession" },
    });
  }
  expect(await send("GET", "/auth/profile")).toMatchObject({
    status: 401,
    body: { error: "expected Authorization header with JWT (Bearer schema)." },
  });
  expect(await send("POST", "/app/other/auth/providers/anon-user/login")).toMatchObject({
    status: 404,
    body: { error: "cannot find app using Client App ID 'other'" },
  });
  expect(await send("POST", "/app/wire-app/auth/providers/anon-user/login?link=true")).toMatchObject({ status: 400 });
  for (const [method, route] of [
    ["GET", "/app/%ff/location"],
    ["POST", "/app/wire-app/auth/providers/anon-user/login?link=1&link=2"],
  ]) {
    const error = "the path or the query of the request cannot be read";
    const unreadable = { error, error_code: "BadRequest", link: LINK };
    expect(await send(method, route)).toEqual({ status: 400, type: "application/json", body: unreadable });
  }
  expect(await send("GET", "/nowhere")).toMatchObject({ status: 404, type: "application/json" });
  expect(await send("PUT", "/auth/session")).toMatchObject({ status: 405, type: "application/json" });
  const deep = `${'{"a":'.repeat(500)}1${"}".repeat(500)}`;
  expect((await call(`{"name":"find","service":"mongodb-atlas","arguments":[${deep}]}`)).status).toBe(400);
});

test("accepts requests only from pages of allowed origins", async () => {
  const ask = async (url, method, origin, headers = {}) => {
    const answer = await fetch(`${url}/api/client/v2.0/app/wire-app/location`, {
      method,
      headers: { Origin: origin, ...headers },
    });
    const { status } = answer;
    const body = await answer.text();
    return {
      status,
      body,
      origin: answer.headers.get("access-control-allow-origin"),
      credentials: answer.headers.get("access-control-allow-credentials"),
    };
  };
  expect(await ask(server.url, "GET", "https://any.example.com")).toMatchObject({
    status: 200,
    origin: "*",
    credentials: null,
  });

  const definition = writeDefinition({
    "root_config.json": { app_id: "wire-app", allowed_request_origins: ["https://app.example.com"] },
  });
  const strict = await Realm.serve({ definition, store: "memory:", port: 0, logger: null });
  expect(await ask(strict.url, "GET", "https://app.example.com")).toMatchObject({
    status: 200,
    origin: "https://app.example.com",
    credentials: "true",
  });
  const preflight = { "Access-Control-Request-Method": "POST" };
  expect(await ask(strict.url, "OPTIONS", "https://app.example.com", preflight)).toMatchObject({
    status: 204,
    origin: "https://app.example.com",
  });
  for (const origin of ["https://evil.example.com", "https://app.example.com.evil.org", "null"]) {
    const refused = await ask(strict.url, "GET", origin);
    expect(refused).toMatchObject({ status: 403, origin: null });
    expect(JSON.parse(refused.body).error_code).toBe("DomainNotAllowed");
  }
  await strict.close();
});

test("the server logs denials by the rules", async () => {
  const lines = [];
  const loud = await Realm.serve({
    app: "wire-app",
    definition: QUICKSTART,
    store: "memory:",
    port: 0,
    logger: (level, message) => lines.push([level, message]),
  });
  const app = `${loud.url}/api/client/v2.0/app/wire-app`;
  const login = await fetch(`${app}/auth/providers/anon-user/login`, { method: "POST" });
  const { access_token: token } = await login.json();
  const argument = { database: DATABASE, collection: COLLECTION, document: { userId: "another-user" } };
  const body = JSON.stringify({ name: "insertOne", service: "mongodb-atlas", arguments: [argument] });
  expect(
    (await fetch(`${app}/functions/call`, { method: "POST", headers: { Authorization: `Bearer ${token}` }, body }))
      .status,
  ).toBe(403);
  await eventually(() => expect(lines).toContainEqual(["debug", expect.stringContaining("denied by the rules")]));
  await loud.close();
});

test("rejects invalid options, and an address that is in use", async () => {
  const options = { app: "wire-app", definition: QUICKSTART, store: "memory:", logger: null };
  await expect(Realm.serve({ ...options, port: 70_000 })).rejects.toThrow(
    "Expected 'port' to be a port from 0 to 65535",
  );
  await expect(Realm.serve({ ...options, publicUrl: "x" })).rejects.toThrow("Expected 'publicUrl' to begin with http");
  await expect(
    Realm.serve({ ...options, app: undefined, definition: writeDefinition({ "root_config.json": {} }) }),
  ).rejects.toThrow("The option 'app' is required");
  await expect(Realm.serve({ ...options, port: Number(new URL(server.url).port) })).rejects.toThrow(
    "cannot listen on 127.0.0.1:",
  );
  const behind = await Realm.serve({ ...options, port: 0, publicUrl: "https://api.example.com/" });
  expect(behind.url).toBe("https://api.example.com");
  await behind.close();
  await behind.close();
});

test("the command serves until SIGTERM, and then exits with status 0", async () => {
  const directory = temporaryDirectory();
  const args = [
    CLI,
    "serve",
    "--definition",
    QUICKSTART,
    "--store",
    `sqlite:${path.join(directory, "app.sqlite")}`,
    "--app",
    "wire-app",
    "--port",
    "0",
  ];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
  const exited = new Promise((resolve) => child.on("exit", resolve));
  const url = await new Promise((resolve) => child.stdout.on("data", (data) => resolve(/at (\S+)/.exec(data)[1])));
  const answer = await fetch(`${url}/api/client/v2.0/app/wire-app/auth/providers/anon-user/login`, { method: "POST" });
  const { user_id: id } = await answer.json();
  child.kill("SIGTERM");
  expect(await exited).toBe(0);
  const app = new Realm.App({
    id: "wire-app",
    definition: QUICKSTART,
    store: `sqlite:${path.join(directory, "app.sqlite")}`,
    baseFilePath: directory,
    logger: null,
  });
  expect((await app.logIn(Realm.Credentials.anonymous())).id).not.toBe(id);
  await app.close();
});

test("the command has options for the limits of operations and the token audience", async () => {
  const options = ["--definition", openDefinition(), "--store", "memory:", "--app", "limited", "--port", "0"];
  const limits = ["--max-documents", "3", "--max-answer-bytes", "50000", "--max-write-documents", "4"];
  const child = spawn(process.execPath, [CLI, "serve", ...options, ...limits, "--max-time", "300", "--token-audience"]);
  const exited = new Promise((resolve) => child.on("exit", resolve));
  const url = await new Promise((resolve) => child.stdout.on("data", (data) => resolve(/at (\S+)/.exec(data)[1])));
  const metadata = { mode: Realm.MetadataMode.InMemory };
  const app = new Realm.App({ id: "limited", baseUrl: url, metadata, logger: null });
  const user = await app.logIn(Realm.Credentials.anonymous());
  const claims = JSON.parse(Buffer.from(user.accessToken.split(".")[1], "base64url"));
  expect(claims.aud).toBe("limited");

  const collection = user.mongoClient("mongodb-atlas").db("db").collection("things");
  const documents = (count) => Array.from({ length: count }, (_, n) => ({ _id: n, list: Array(3000).fill(n) }));
  const fails = (message) => ({ code: 4304, message: expect.stringContaining(message) });
  await expect(collection.insertMany(documents(5))).rejects.toMatchObject(fails("more than 4 documents"));
  await collection.insertMany(documents(4));
  const projection = { _id: 1 };
  expect(await collection.find({}, { projection, limit: 3 })).toHaveLength(3);
  await expect(collection.find({}, { projection })).rejects.toMatchObject(fails("more than 3 documents"));
  await expect(collection.find({}, { limit: 3 })).rejects.toMatchObject(fails("50000 bytes"));
  const copies = { $addFields: { second: "$list", third: "$list" } };
  const unwound = ["list", "second", "third"].map((name) => ({ $unwind: `$${name}` }));
  const begun = performance.now();
  await expect(collection.aggregate([copies, ...unwound, { $count: "n" }])).rejects.toMatchObject({ serverCode: 50 });
  // Well below the default of 10 s.
  expect(performance.now() - begun).toBeLessThan(5000);

  await app.close();
  child.kill("SIGTERM");
  expect(await exited).toBe(0);
  await expect(run(process.execPath, [CLI, "serve", ...options, "--max-time", "1s"])).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining("--max-time must be a number, got '1s'"),
  });
});

test("serve rejects with the reason if the store cannot be opened", async () => {
  const file = path.join(temporaryDirectory(), "other.sqlite");
  fs.writeFileSync(file, "this is no database");
  const options = { app: "wire-app", definition: QUICKSTART, store: `sqlite:${file}`, port: 0, logger: null };
  await expect(Realm.serve(options)).rejects.toThrow(file);
  const args = ["--app", "wire-app", "--definition", QUICKSTART, "--store", `sqlite:${file}/app.sqlite`, "--port", "0"];
  await expect(run(process.execPath, [CLI, "serve", ...args])).rejects.toMatchObject({
    code: 1,
    stdout: "",
    stderr: expect.stringContaining(`userkeep: cannot open the store ${file}/app.sqlite`),
  });
  // If the file does not exist, serve creates it.
  const missing = path.join(temporaryDirectory(), "late/app.sqlite");
  const opening = Realm.serve({ ...options, store: `sqlite:${missing}` });
  await (await opening).close();
  expect(fs.existsSync(missing)).toBe(true);
});

test("health reports a general error to clients, and the reason to the operator", async () => {
  const lines = [];
  // The server listens even if the database is not available yet.
  const waiting = await Realm.serve({
    app: "wire-app",
    definition: QUICKSTART,
    store: "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200",
    port: 0,
    metricsPort: 0,
    logger: (level, text) => lines.push([level, text]),
  });
  const health = async (url) => {
    const answer = await fetch(`${url}/healthz`);
    return [answer.status, (await answer.json()).error];
  };
  const ofClients = await health(waiting.url);
  const ofOperator = await health(waiting.metricsUrl);
  await waiting.close();
  expect(ofClients).toEqual([503, "the database is not available"]);
  expect(ofOperator).toEqual([
    503,
    expect.stringMatching(
      /^the store cannot be read: the database is not available: none of its members can be reached/,
    ),
  ]);
  await eventually(() => {
    expect(lines).toContainEqual([
      "warn",
      expect.stringContaining("the store is not ready; requests fail until it is"),
    ]);
    expect(lines).toContainEqual(["warn", expect.stringContaining("health check failed: the store cannot be read")]);
  });
});

test("the log contains the path of a store that fails, and the response does not", async () => {
  const directory = temporaryDirectory();
  const file = path.join(directory, "late/app.sqlite");
  const definition = writeDefinition({
    "data_sources/other/config.json": { name: "other", type: "mongodb-atlas" },
    "data_sources/other/default_rule.json": { roles: [readAndWriteAll], filters: [] },
  });
  const lines = [];
  const broken = await Realm.serve({
    app: "wire-app",
    definition,
    store: "memory:",
    dataSources: { other: `sqlite:${file}` },
    port: 0,
    logger: (level, text) => lines.push([level, text]),
  });
  // The first write creates the file, and fails because a file has the name of its directory.
  fs.writeFileSync(path.dirname(file), "");
  const api = `${broken.url}/api/client/v2.0/app/wire-app`;
  const login = await fetch(`${api}/auth/providers/anon-user/login`, { method: "POST", body: "{}" });
  const { access_token: token } = await login.json();
  const answer = await fetch(`${api}/functions/call`, {
    method: "POST",
    headers: { Authorization: `Bearer ${token}` },
    body: JSON.stringify({
      name: "insertOne",
      service: "other",
      arguments: [{ database: "app", collection: "things", document: { n: 1 } }],
    }),
  });
  const text = await answer.text();
  await broken.close();
  expect([answer.status, JSON.parse(text)]).toEqual([
    500,
    { error: "internal server error", error_code: "InternalServerError", link: LINK },
  ]);
  await eventually(() => expect(lines).toContainEqual(["error", expect.stringContaining(file)]));
});

test("init writes a definition that passes check", async () => {
  const directory = temporaryDirectory();
  const made = path.join(directory, "made");
  await run(process.execPath, [CLI, "init", made]);
  const checked = (await run(process.execPath, [CLI, "check", made])).stdout;
  expect(checked).toMatch(/^note: the definition has no allowed_request_origins.*\n.*: no problems\n$/);
  await expect(run(process.execPath, [CLI, "init", made])).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining("is not empty; nothing was written"),
  });
  const { app_id: id } = JSON.parse(fs.readFileSync(path.join(made, "root_config.json"), "utf8"));
  expect(id).toBe("my-app");
  const app = new Realm.App({ id, definition: made, store: "memory:", logger: null });
  await app.logIn(Realm.Credentials.anonymous());
  await app.close();

  fs.writeFileSync(path.join(made, "auth/providers.json"), '{ "anon-user": { "disabled": false, "colour": 1 } }');
  const warning = "warning: auth/providers.json at $.anon-user.colour: the key is not known and not used\n";
  const warned = await run(process.execPath, [CLI, "check", made]);
  expect(warned.stdout).toContain(`${warning}${made}: 0 errors, 1 warning\n`);
  await expect(run(process.execPath, [CLI, "check", "--strict", made])).rejects.toMatchObject({
    code: 1,
    stdout: warned.stdout,
  });
  fs.writeFileSync(path.join(made, "auth/custom_user_data.json"), '{ "enabled": true }');
  await expect(run(process.execPath, [CLI, "check", made])).rejects.toMatchObject({
    code: 1,
    // Three required keys are missing; `mongo_service_name` is optional with a single data source.
    stdout: expect.stringMatching(
      /^error: auth\/custom_user_data.json at \$.database_name: .*\n(error: .*\n){2}warning: auth\/providers.json .*\n.*: 3 errors, 1 warning\n$/,
    ),
  });
  await expect(run(process.execPath, [CLI, "dance"])).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining("unknown command 'dance'"),
  });
  await expect(run(process.execPath, [CLI, "serve", "--loud"])).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining("Usage:"),
  });
});
