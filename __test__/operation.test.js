"use strict";

// Operation of a server: health, metrics, logs, request ids, shutdown and key rotation.

const { execFile, spawn } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { promisify } = require("node:util");
const {
  COLLECTION,
  DATABASE,
  OWN_STORE,
  PASSWORD,
  QUICKSTART,
  ROOT,
  eventually,
  openBackend,
  serve,
  temporaryDirectory,
} = require("./helpers.js");

const CLI = path.join(ROOT, "bin/userkeep.js");
const run = promisify(execFile);
const children = [];

afterEach(() => {
  for (const child of children.splice(0)) {
    child.kill("SIGKILL");
  }
});

const app = (url) => `${url}/api/client/v2.0/app/test-app`;
const header = (token) => JSON.parse(Buffer.from(token.split(".")[0], "base64url"));

async function logIn(url, email) {
  const credentials = { username: email, password: PASSWORD };
  const provider = email === undefined ? "anon-user" : "local-userpass";
  const answer = await fetch(`${app(url)}/auth/providers/${provider}/login`, {
    method: "POST",
    body: JSON.stringify(email === undefined ? {} : credentials),
  });
  return { status: answer.status, ...(await answer.json()) };
}

test("serves health and metrics on a separate listener, which is off by default", async () => {
  const plain = await serve();
  expect(plain.metricsUrl).toBeUndefined();
  expect((await fetch(`${plain.url}/metrics`)).status).toBe(404);
  const health = await fetch(`${plain.url}/healthz`);
  expect([health.status, await health.json()]).toEqual([200, { status: "ok" }]);

  const server = await serve({ metricsPort: 0 });
  expect(server.metricsUrl).not.toBe(server.url);
  await logIn(server.url);
  expect((await fetch(`${app(server.url)}/functions/call`, { method: "POST" })).status).toBe(401);
  await fetch(`${server.url}/made/up/${Math.random()}`);
  expect((await fetch(`${server.metricsUrl}/healthz`)).status).toBe(200);
  const answer = await fetch(`${server.metricsUrl}/metrics`);
  expect(answer.headers.get("content-type")).toContain("text");
  const metrics = await answer.text();
  const route = (end) => `route="/api/client/v2.0/app/{app}/${end}"`;
  expect(metrics).toContain(
    `userkeep_http_requests_total{method="POST",${route("auth/providers/{provider}/login")},status="200"} 1`,
  );
  expect(metrics).toContain(`userkeep_http_requests_total{method="POST",${route("functions/call")},status="401"} 1`);
  expect(metrics).toContain('userkeep_http_requests_total{method="GET",route="none",status="404"} 1');
  expect(metrics).toMatch(/^userkeep_http_request_duration_seconds_count\{route="none"\} 1$/m);
  expect(metrics).toMatch(/^userkeep_refused_attempts_total 0$/m);
  expect(metrics).toMatch(/^# EOF$/m);
});

test("health and log-ins fail after the store's file was removed, and the log says so once", async () => {
  const directory = temporaryDirectory();
  const file = path.join(directory, "store.sqlite");
  const lines = [];
  const server = await serve({
    store: `sqlite:${file}`,
    metricsPort: 0,
    logger: (level, text) => lines.push([level, text]),
  });
  expect((await logIn(server.url)).status).toBe(200);
  for (const end of ["", "-wal", "-shm"]) {
    fs.rmSync(`${file}${end}`);
  }
  for (let attempt = 0; attempt < 2; attempt++) {
    const health = await fetch(`${server.url}/healthz`);
    expect([health.status, (await health.json()).error]).toEqual([503, "the store's file was removed or replaced"]);
    const forOperator = await fetch(`${server.metricsUrl}/healthz`);
    expect((await forOperator.json()).error).toContain(`the file of the store ${file} was removed or replaced`);
    expect((await logIn(server.url)).status).toBe(500);
  }
  await eventually(() => {
    const warnings = lines.filter(([, text]) => text.includes("the store's file was removed or replaced"));
    expect(warnings.map(([level]) => level)).toEqual(["warn"]);
  });
});

test("every response has a request id, which a trusted proxy may set", async () => {
  const own = { "X-Request-Id": "from-the-proxy.1" };
  const id = async (url, headers) => (await fetch(`${app(url)}/location`, { headers })).headers.get("x-request-id");
  const { url } = await serve();
  expect(await id(url)).toMatch(/^[0-9a-f]{24}$/);
  expect(await id(url)).not.toBe(await id(url));
  expect(await id(url, own)).not.toBe(own["X-Request-Id"]);
  const behind = await serve({ trustProxy: ["127.0.0.1/32"] });
  expect(await id(behind.url, own)).toBe(own["X-Request-Id"]);
  expect(await id(behind.url, { "X-Request-Id": "a b" })).toMatch(/^[0-9a-f]{24}$/);
  await expect(serve({ trustProxy: "everybody" })).rejects.toThrow("'everybody' is neither a network");
});

test("close completes the requests in flight", async () => {
  const server = await serve();
  const registered = await fetch(`${app(server.url)}/auth/providers/local-userpass/register`, {
    method: "POST",
    body: JSON.stringify({ email: "a@example.com", password: PASSWORD }),
  });
  expect(registered.status).toBe(201);
  const answers = Array.from({ length: 20 }, () => logIn(server.url, "a@example.com"));
  await Promise.race(answers);
  await server.close();
  const statuses = (await Promise.allSettled(answers)).map(({ value, reason }) => value?.status ?? reason.cause?.code);
  // Accepted connections get a response; the others are refused.
  expect(statuses.filter((status) => status === 200).length).toBeGreaterThan(10);
  expect(statuses.filter((status) => ![200, "ECONNREFUSED", "ECONNRESET", "UND_ERR_SOCKET"].includes(status))).toEqual(
    [],
  );
  await expect(logIn(server.url)).rejects.toThrow("fetch failed");
});

test("the JSON log has the request id in each line of a request, and contains no secrets", async () => {
  const store = `sqlite:${path.join(temporaryDirectory(), "app.sqlite")}`;
  const options = ["--definition", QUICKSTART, "--store", store, "--app", "test-app", "--port", "0"];
  const child = spawn(process.execPath, [CLI, "serve", ...options, "--log", "json", "--log-level", "debug"]);
  children.push(child);
  const exited = new Promise((resolve) => child.on("exit", resolve));
  let text = "";
  child.stderr.on("data", (data) => {
    text += data;
  });
  const url = await new Promise((resolve) => child.stdout.on("data", (data) => resolve(/at (\S+)/.exec(data)[1])));
  const { access_token: token } = await logIn(url);
  await logIn(url, "unknown@example.com");
  const argument = { database: DATABASE, collection: COLLECTION, document: { userId: "another-user" } };
  const denied = await fetch(`${app(url)}/functions/call`, {
    method: "POST",
    headers: { Authorization: `Bearer ${token}` },
    body: JSON.stringify({ name: "insertOne", service: "mongodb-atlas", arguments: [argument] }),
  });
  expect(denied.status).toBe(403);
  const id = denied.headers.get("x-request-id");
  const lines = () =>
    text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
  await eventually(() =>
    expect(lines()).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ level: "info", message: expect.stringContaining("serving app 'test-app'") }),
        expect.objectContaining({ level: "debug", request_id: id, reason: "no role applies" }),
        expect.objectContaining({
          time: expect.any(String),
          level: "debug",
          message: "request completed",
          request_id: id,
          method: "POST",
          route: "/api/client/v2.0/app/{app}/functions/call",
          status: 403,
          client: "127.0.0.1",
          milliseconds: expect.any(Number),
        }),
      ]),
    ),
  );
  for (const secret of [token, PASSWORD, "unknown@example.com"]) {
    expect(text).not.toContain(secret);
  }
  child.kill("SIGTERM");
  expect(await exited).toBe(0);
  const wrong = run(process.execPath, [CLI, "serve", ...options, "--log", "xml"]);
  await expect(wrong).rejects.toMatchObject({ code: 1, stderr: "userkeep: --log must be text or json, got 'xml'\n" });
});

test("the handle and the command rotate keys; tokens signed before stay valid", async () => {
  const baseFilePath = temporaryDirectory();
  const server = await serve({ store: OWN_STORE, baseFilePath });
  const before = await logIn(server.url);
  const backend = await openBackend({ definition: QUICKSTART, baseFilePath });
  const second = await backend.rotateKeys();
  expect(second).not.toBe(header(before.access_token).kid);
  const after = await logIn(server.url);
  expect(header(after.refresh_token).kid).toBe(second);

  const store = OWN_STORE ?? `sqlite:${path.join(baseFilePath, ".userkeep/test-app.sqlite")}`;
  const options = ["--definition", QUICKSTART, "--store", store, "--app", "test-app"];
  const { stdout } = await run(process.execPath, [CLI, "keys", "rotate", ...options]);
  const [, third] = /^new signing key of app 'test-app' in .*: (\w+)$/m.exec(stdout);
  const { keys } = await (await fetch(`${app(server.url)}/auth/jwks`)).json();
  expect(keys.map(({ kid }) => kid)).toEqual([header(before.access_token).kid, second, third]);
  for (const { access_token: token } of [before, after]) {
    const profile = await fetch(`${server.url}/api/client/v2.0/auth/profile`, {
      headers: { Authorization: `Bearer ${token}` },
    });
    expect(profile.status).toBe(200);
  }
  const refreshed = await fetch(`${server.url}/api/client/v2.0/auth/session`, {
    method: "POST",
    headers: { Authorization: `Bearer ${before.refresh_token}` },
  });
  expect(header((await refreshed.json()).access_token).kid).toBe(third);
  await expect(run(process.execPath, [CLI, "keys"])).rejects.toMatchObject({
    stderr: expect.stringContaining("the only action of 'userkeep keys' is rotate"),
  });
});
