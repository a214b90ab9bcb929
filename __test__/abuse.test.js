"use strict";

// Abusive clients, slow clients and clients that disconnect.

const net = require("node:net");
const { DATABASE, COLLECTION, PASSWORD, serve: serveApp } = require("./helpers.js");

let url;

async function serve(options) {
  const server = await serveApp(options);
  url = `${server.url}/api/client/v2.0`;
  return server;
}

async function send(method, route, { token, body, headers, signal } = {}) {
  const answer = await fetch(url + route, {
    method,
    headers: { ...(token && { Authorization: `Bearer ${token}` }), ...headers },
    body: body && JSON.stringify(body),
    signal,
  });
  const text = await answer.text();
  return {
    status: answer.status,
    retryAfter: Number(answer.headers.get("retry-after") ?? 0),
    body: text && JSON.parse(text),
  };
}

const providers = "/app/test-app/auth/providers";
const register = (email, options) =>
  send("POST", `${providers}/local-userpass/register`, { body: { email, password: PASSWORD }, ...options });
const logIn = (username, password = PASSWORD, options = {}) =>
  send("POST", `${providers}/local-userpass/login`, { body: { username, password }, ...options });
const from = (address) => ({ headers: { "X-Forwarded-For": address } });
const refused = {
  status: 429,
  retryAfter: expect.any(Number),
  body: { error: expect.stringContaining("too many attempts; try again in"), error_code: "AppServerError" },
};

/** Returns the number of calls that fail before one is rate limited, `limit` at most. */
async function failures(ask, limit = 100) {
  for (let count = 0; count < limit; count++) {
    const answer = await ask(count);
    if (answer.status === 429) {
      return count;
    }
    expect([400, 401, 409]).toContain(answer.status);
  }
  return limit;
}

/**
 * Expects about 50 failures, the number that one address may make before it is rate limited.
 * On a busy machine a few of them expire while the passwords are checked.
 */
const fiftyOrSo = (count) => {
  expect(count).toBeGreaterThanOrEqual(51);
  expect(count).toBeLessThan(70);
};

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

describe("the rate limit of log-ins", () => {
  test("applies per account, even with forged X-Forwarded-For headers", async () => {
    await serve();
    await register("a@example.com");
    expect(await failures((count) => logIn("a@example.com", "wrong", from(`198.51.100.${count}`)))).toBe(6);
    const answer = await logIn("a@example.com");
    expect(answer).toMatchObject(refused);
    expect(answer.retryAfter).toBe(1);
    await pause(answer.retryAfter * 1000);
    expect(await logIn("a@example.com")).toMatchObject({ status: 200 });
    // Other accounts are not rate limited.
    await register("b@example.com");
    expect(await logIn("b@example.com")).toMatchObject({ status: 200 });
  });

  test("applies per address, except for accounts that logged in from it before", async () => {
    await serve();
    await register("a@example.com");
    expect(await logIn("a@example.com")).toMatchObject({ status: 200 });
    fiftyOrSo(await failures((count) => logIn(`unknown${count}@example.com`)));
    expect(await register("late@example.com")).toMatchObject(refused);
    expect(await logIn("a@example.com")).toMatchObject({ status: 200 });
  });

  test("applies per client behind a trusted proxy", async () => {
    await serve({ trustProxy: "127.0.0.0/8" });
    await register("a@example.com");
    const wrong = (address) => () => logIn("a@example.com", "wrong", from(address));
    // The client makes up the first address; the trusted proxy appends the second.
    expect(await failures((count) => logIn("a@example.com", "wrong", from(`203.0.113.${count}, 192.0.2.1`)))).toBe(6);
    expect(await logIn("a@example.com", PASSWORD, from("192.0.2.2"))).toMatchObject({ status: 200 });
    expect(await failures(wrong("192.0.2.2"))).toBe(6);
    const within = (count) => logIn(`unknown${count}@example.com`, PASSWORD, from(`2001:db8::${count.toString(16)}`));
    fiftyOrSo(await failures(within));
    expect(await logIn("unknown@example.com", PASSWORD, from("2001:db8:0:1::1"))).toMatchObject({ status: 401 });
  });

  test("applies only per account for an unlimited address", async () => {
    await serve({ unlimited: ["127.0.0.1"] });
    await register("a@example.com");
    expect(await failures((count) => logIn(`unknown${count}@example.com`), 60)).toBe(60);
    expect(await failures(() => logIn("a@example.com", "wrong"))).toBe(6);
  });

  test("applies to the account that an action uses, whatever else the request has", async () => {
    await serve({ unlimited: ["127.0.0.1"] });
    await register("a@example.com");
    const registerAgain = (count) => {
      const body = { email: "a@example.com", password: PASSWORD, username: `unknown${count}@example.com` };
      return send("POST", `${providers}/local-userpass/register`, { body });
    };
    expect(await failures(registerAgain)).toBe(6);
  });

  test("does not affect concurrent log-ins with the correct password", async () => {
    await serve();
    await register("a@example.com");
    const answers = await Promise.all(Array.from({ length: 30 }, () => logIn("a@example.com")));
    expect(answers.map(({ status }) => status)).toEqual(Array(30).fill(200));
  });
});

test("rate limits registrations of taken addresses and anonymous log-ins", async () => {
  await serve();
  await register("a@example.com");
  expect(await failures(() => register("a@example.com"))).toBe(6);
  let made = 0;
  let answer;
  do {
    answer = await send("POST", `${providers}/anon-user/login`);
    made += 1;
  } while (answer.status === 200);
  expect(answer).toMatchObject(refused);
  expect(made).toBeGreaterThan(150);
});

test("rate limits refreshes with forged tokens, but not with genuine ones", async () => {
  await serve();
  const { body } = await send("POST", `${providers}/anon-user/login`);
  const forged = `${body.refresh_token.slice(0, -20)}${"A".repeat(20)}`;
  fiftyOrSo(await failures(() => send("POST", "/auth/session", { token: forged })));
  expect(await send("POST", "/auth/session", { token: forged })).toMatchObject(refused);
  expect(await send("POST", "/auth/session", { token: body.refresh_token })).toMatchObject({ status: 201 });
});

/**
 * Sends bytes over TCP. When the server closes the connection, resolves to `{ answer, took }`: all
 * that it sent, and the time that passed in milliseconds.
 */
function raw(port, text, { keep = true } = {}) {
  return new Promise((resolve, reject) => {
    const begun = Date.now();
    const socket = net.connect({ port, host: "127.0.0.1", allowHalfOpen: keep });
    let answer = "";
    socket.on("data", (data) => {
      answer += data;
    });
    socket.on("error", reject);
    socket.on("end", () => {
      socket.destroy();
      resolve({ answer, took: Date.now() - begun });
    });
    socket.write(text);
  });
}

test("disconnects slow and silent clients", async () => {
  const server = await serve({ clientTimeout: 500 });
  const { port } = new URL(server.url);
  const silent = await raw(port, "");
  const half = await raw(port, "GET /api/client/v2.0/app/test-app/location HTTP/1.1\r\nHost: x\r\nX-Slow");
  const idle = await raw(port, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
  const head = `POST /api/client/v2.0${providers}/anon-user/login HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n`;
  const body = await raw(port, `${head}{`);
  for (const { took } of [silent, half, idle, body]) {
    expect(took).toBeGreaterThan(400);
    expect(took).toBeLessThan(5000);
  }
  expect(idle.answer).toMatch(/^HTTP\/1\.1 200 OK[\s\S]*{"status":"ok"}$/);
  expect(body.answer).toMatch(/^HTTP\/1\.1 408 [\s\S]*"error":"the body took too long to arrive"/);
});

test("disconnects a client that does not read its response", async () => {
  const server = await serve({ clientTimeout: 500 });
  const { port } = new URL(server.url);
  const { body } = await send("POST", `${providers}/anon-user/login`);
  const call = (name, argument) => ({
    name,
    service: "mongodb-atlas",
    arguments: [{ database: DATABASE, collection: COLLECTION, ...argument }],
  });
  const document = { userId: body.user_id, text: "x".repeat(15_000_000) };
  const token = body.access_token;
  const written = await send("POST", "/app/test-app/functions/call", { token, body: call("insertOne", { document }) });
  expect(written.status).toBe(200);
  const find = JSON.stringify(call("find", {}));
  const head = `POST /api/client/v2.0/app/test-app/functions/call HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}`;
  const socket = net.connect({ port, host: "127.0.0.1" });
  socket.pause();
  socket.write(`${head}\r\nContent-Length: ${find.length}\r\n\r\n${find}`);
  await pause(2500);
  let received = 0;
  socket.on("data", (data) => {
    received += data.length;
  });
  const ended = new Promise((resolve) => socket.on("close", resolve));
  socket.on("error", () => {});
  socket.resume();
  await ended;
  expect(received).toBeLessThan(document.text.length);
});

test("cancels the work of a client that disconnects", async () => {
  const server = await serve({ unlimited: "127.0.0.1", metricsPort: 0 });
  await register("a@example.com");
  const begun = performance.now();
  await logIn("a@example.com");
  const alone = performance.now() - begun;
  const flood = new AbortController();
  const abandoned = Array.from({ length: 60 }, (_, count) =>
    logIn(`unknown${count}@example.com`, PASSWORD, { signal: flood.signal }).catch(({ name }) => name),
  );
  const inFlight = async () => {
    const metrics = await (await fetch(`${server.metricsUrl}/metrics`)).text();
    return Number(/^userkeep_http_requests_in_flight (\d+)$/m.exec(metrics)[1]);
  };
  while ((await inFlight()) < 40) {
    await pause(1);
  }
  flood.abort();
  expect(await Promise.all(abandoned)).toContain("AbortError");
  const after = performance.now();
  expect(await logIn("a@example.com")).toMatchObject({ status: 200 });
  // Checking forty passwords would take far longer.
  expect(performance.now() - after).toBeLessThan(Math.max(20 * alone, 300));
  expect(await inFlight()).toBe(0);
});
