"use strict";

// HTTP requests that are large, slow, ambiguous or too many.

const net = require("node:net");
const { PASSWORD, openDefinition, serve } = require("../helpers.js");

const sockets = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) {
    socket.destroy();
  }
});

/** Connects to a server; `text` is the data received so far, and `ended` resolves at the end. */
function connect(url) {
  const { hostname, port } = new URL(url);
  const socket = net.connect({ host: hostname, port: Number(port) });
  sockets.push(socket);
  const connection = { socket, text: "" };
  socket.setEncoding("latin1");
  socket.on("data", (data) => {
    connection.text += data;
  });
  connection.ended = new Promise((resolve) => {
    socket.on("error", resolve);
    socket.on("close", resolve);
  });
  return connection;
}

/** Sends the text of a request; returns the status and the text of the response. */
async function answer(url, text) {
  const connection = connect(url);
  connection.socket.write(text);
  await Promise.race([connection.ended, until(() => connection.text.includes("\r\n\r\n"))]);
  connection.socket.destroy();
  return { status: Number(connection.text.slice(9, 12)), text: connection.text };
}

async function until(is) {
  for (const end = Date.now() + 10_000; Date.now() < end; ) {
    if (is()) {
      return true;
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return false;
}

const API = "/api/client/v2.0";
const CALL = `${API}/app/test-app/functions/call`;
const LOG_IN = `${API}/app/test-app/auth/providers`;

async function post(url, path, body, headers = {}) {
  const response = await fetch(url + path, { method: "POST", body, headers });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: text && JSON.parse(text) };
}

async function logIn(url) {
  const { body } = await post(url, `${LOG_IN}/anon-user/login`, "{}");
  return body.access_token;
}

const insertOf = (bytes) =>
  JSON.stringify({
    name: "insertOne",
    service: "mongodb-atlas",
    arguments: [{ database: "db", collection: "c", document: { text: "x".repeat(bytes) } }],
  });

describe("a large body", () => {
  test("is rejected for a log-in, and for a call without a valid token", async () => {
    const { url } = await serve({ definition: openDefinition() });
    const large = JSON.stringify({ username: "a@example.com", password: "x".repeat(70_000) });
    expect(await post(url, `${LOG_IN}/local-userpass/login`, large)).toMatchObject({ status: 413 });
    expect(await post(url, `${LOG_IN}/local-userpass/register`, large)).toMatchObject({ status: 413 });
    const call = insertOf(200_000);
    expect(await post(url, CALL, call, { Authorization: "Bearer none" })).toMatchObject({ status: 401 });
    const token = await logIn(url);
    expect(await post(url, CALL, call, { Authorization: `Bearer ${token}` })).toMatchObject({ status: 200 });
  });

  test("uses a limited share of the memory, and small requests are served meanwhile", async () => {
    const { url } = await serve({ definition: openDefinition() });
    const token = await logIn(url);
    const unfinished = [];
    for (let n = 0; n < 4; n++) {
      const connection = connect(url);
      const length = 17 * 2 ** 20;
      connection.socket.write(
        `POST ${CALL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Length: ${length}\r\n\r\n`,
      );
      connection.socket.write(insertOf(16 * 2 ** 20).slice(0, -10));
      unfinished.push(connection);
    }
    // Together they exceed 32 MB, an eighth of the 256 MB for all bodies.
    const refused = () => unfinished.filter(({ text }) => text.includes("\r\n\r\n"));
    expect(await until(() => refused().length >= 2)).toBe(true);
    for (const { text } of refused()) {
      expect(text.slice(9, 12)).toBe("429");
      expect(text.toLowerCase()).toContain("retry-after:");
    }
    const small = JSON.parse(insertOf(10));
    const answered = await post(url, CALL, JSON.stringify(small), { Authorization: `Bearer ${token}` });
    expect(answered).toMatchObject({ status: 200 });
  });
});

const MB = 2 ** 20;
/** Spaces, which are a valid beginning of a body, however many there are. */
const PIECE = Buffer.alloc(MB, " ");

/** Writes all pieces to a socket; returns false if it was closed meanwhile. */
async function writeAll(socket, pieces) {
  for (const piece of pieces) {
    if (socket.destroyed) {
      return false;
    }
    if (!socket.write(piece)) {
      await new Promise((resolve) => {
        socket.once("drain", resolve).once("close", resolve);
      });
    }
  }
  return true;
}

/** Yields the pieces of a body, with chunk framing if `isChunked`. */
function* bodyOf(megabytes, isChunked) {
  for (let n = 0; n < megabytes; n++) {
    yield isChunked ? Buffer.concat([Buffer.from(`${MB.toString(16)}\r\n`), PIECE, Buffer.from("\r\n")]) : PIECE;
  }
  if (isChunked) {
    yield "0\r\n\r\n";
  }
}

function headOf(path, megabytes, { token, isChunked = false, expects = false }) {
  const framing = isChunked ? "Transfer-Encoding: chunked" : `Content-Length: ${megabytes * MB}`;
  const more = [token && `Authorization: Bearer ${token}`, expects && "Expect: 100-continue"].filter(Boolean);
  return `${["POST", path, "HTTP/1.1\r\nHost: x\r\n"].join(" ")}${[framing, ...more].join("\r\n")}\r\n\r\n`;
}

describe("a request that is rejected while its body is sent gets a response", () => {
  const elsewhere = `${API}/app/another-app/functions/call`;
  const logInBody = `${LOG_IN}/local-userpass/login`;
  const TRIES = 30;

  test.each([
    ["413", "of a log-in", 20, logInBody, {}],
    ["413", "of a log-in, in chunks", 20, logInBody, { isChunked: true }],
    ["413", "of a log-in with Expect: 100-continue", 20, logInBody, { expects: true }],
    ["404", "of another app", 20, elsewhere, {}],
    ["404", "of another app, in chunks", 70, elsewhere, { isChunked: true }],
    ["401", "without a token", 20, CALL, { token: "none" }],
    ["401", "without a token, in chunks", 70, CALL, { token: "none", isChunked: true }],
    ["413", "that is too large", 70, CALL, { token: true }],
    ["413", "that is too large, with Expect: 100-continue", 70, CALL, { token: true, expects: true }],
  ])("with %s: a body %s, of %d MB", async (status, _, megabytes, path, { token, ...options }) => {
    const { url } = await serve({ definition: openDefinition() });
    const bearer = token === true ? await logIn(url) : token;
    for (let n = 0; n < TRIES; n++) {
      const connection = connect(url);
      // Like a client that reads nothing until it has sent everything.
      connection.socket.pause();
      connection.socket.write(headOf(path, megabytes, { token: bearer, ...options }));
      expect(await writeAll(connection.socket, bodyOf(megabytes, options.isChunked))).toBe(true);
      connection.socket.resume();
      await connection.ended;
      expect(connection.text.slice(9, 12)).toBe(status);
      expect(connection.text.toLowerCase()).toContain("connection: close");
    }
  });

  test("with 413: a body in chunks, after more than 64 MB have arrived", async () => {
    const { url } = await serve({ definition: openDefinition() });
    const token = await logIn(url);
    for (let n = 0; n < 5; n++) {
      const connection = connect(url);
      connection.socket.pause();
      connection.socket.write(headOf(CALL, 70, { token, isChunked: true }));
      expect(await writeAll(connection.socket, bodyOf(70, true))).toBe(true);
      connection.socket.resume();
      await connection.ended;
      expect(connection.text.slice(9, 12)).toBe("413");
      expect(connection.text).toContain("--max-body-size");
    }
  });

  test("without 100 Continue if the client waits for it", async () => {
    const { url } = await serve();
    const connection = connect(url);
    connection.socket.write(headOf(logInBody, 20, { expects: true }));
    expect(await until(() => connection.text.includes("\r\n\r\n"))).toBe(true);
    expect(connection.text.slice(9, 12)).toBe("413");
    const begun = Date.now();
    await connection.ended;
    expect(Date.now() - begun).toBeGreaterThan(1_000);
    expect(connection.text).not.toContain(" 100 ");
  });

  test("and is disconnected if the body does not end", async () => {
    const { url } = await serve();
    const connection = connect(url);
    connection.socket.write(headOf(logInBody, 10_000, {}));
    // Like a client that reads while it sends. The system discards a response that is unread when
    // the server disconnects, and writes that complete at once leave no time to read.
    expect(await until(() => connection.text.includes("\r\n\r\n"))).toBe(true);
    expect(await writeAll(connection.socket, bodyOf(300, false))).toBe(false);
    expect(connection.text.slice(9, 12)).toBe("413");
  });
});

describe("a document of 16 MB", () => {
  const BYTES = 16 * MB - 64;

  /** Calls `insertOne` with a document, and then counts the documents. */
  async function insert(value) {
    const { url } = await serve({ definition: openDefinition() });
    const token = await logIn(url);
    const call = (name, argument) => {
      const target = { database: "db", collection: "c", ...argument };
      const body = JSON.stringify({ name, service: "mongodb-atlas", arguments: [target] });
      return post(url, CALL, body, { Authorization: `Bearer ${token}` });
    };
    const inserted = await call("insertOne", { document: { _id: 1, value } });
    return { inserted, count: await call("count", { query: {} }) };
  }

  test.each([
    ["text", () => "x".repeat(BYTES)],
    ["non-Latin text", () => "語".repeat(BYTES / 3)],
    ["text with line breaks and quotes", () => 'a "line"\n'.repeat(BYTES / 9)],
    ["whole numbers", () => Array.from({ length: BYTES / 13 }, (_, n) => ({ $numberInt: `${n}` }))],
    ["numbers", () => Array.from({ length: BYTES / 17 }, (_, n) => ({ $numberDouble: `${n / 7}` }))],
    ["plain numbers", () => Array.from({ length: BYTES / 13 }, (_, n) => n)],
    ["binary data", () => ({ $binary: { base64: Buffer.alloc(BYTES, 7).toString("base64"), subType: "00" } })],
  ])("of %s is stored", async (_, value) => {
    const { inserted, count } = await insert(value());
    expect(inserted).toMatchObject({ status: 200 });
    expect(count.body).toEqual({ $numberLong: "1" });
  });

  test("is rejected with the option's name if it needs more than 64 MB as JSON", async () => {
    const { inserted, count } = await insert("\u0001".repeat(BYTES));
    expect(inserted).toMatchObject({ status: 413, body: { error: expect.stringContaining("--max-body-size") } });
    expect(count.body).toEqual({ $numberLong: "0" });
  });

  test("is limited as BSON too, however short it is as JSON", async () => {
    const { inserted } = await insert(Array(10_000_000).fill(0));
    expect(inserted).toMatchObject({ status: 413, body: { error: expect.stringContaining("as BSON") } });
  });
});

test("limits the connections of one peer, and logs it once", async () => {
  const lines = [];
  const { url } = await serve({ logger: (level, message) => lines.push([level, message]) });
  const held = Array.from({ length: 520 }, () => connect(url));
  await Promise.all(held.map(({ socket }) => new Promise((resolve) => socket.once("connect", resolve))));
  let closed = 0;
  for (const { ended } of held) {
    ended.then(() => {
      closed += 1;
    });
  }
  expect(await until(() => closed >= 20)).toBe(true);
  expect(closed).toBeLessThan(60);
  held.slice(0, 50).forEach(({ socket }) => void socket.destroy());
  await until(() => closed >= 60);
  expect(await post(url, `${LOG_IN}/anon-user/login`, "{}")).toMatchObject({ status: 200 });
  expect(
    lines.filter(([level, message]) => level === "warn" && /share|connections/.test(JSON.stringify(message))),
  ).toHaveLength(1);
});

describe("headers", () => {
  test("are rejected if they are ambiguous", async () => {
    const { url } = await serve();
    const head = (lines) => `POST ${LOG_IN}/anon-user/login HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`;
    const body = ["Content-Length: 2", "", "{}"].slice(0, 1);
    for (const [lines, status] of [
      [["Host: a", "Host: b", ...body], 400],
      [body, 400],
      [["Host: a", "Authorization: Bearer a", "Authorization: Bearer b", ...body], 400],
      [["Host: a", "Transfer-Encoding: gzip, chunked"], 400],
      [["Host: a", "Content-Encoding: gzip", ...body], 415],
    ]) {
      expect(await answer(url, `${head(lines)}{}`)).toMatchObject({ status });
    }
    expect(await answer(url, `GET /healthz HTTP/1.0\r\n\r\n`)).toMatchObject({ status: 200 });
  });

  test("of every response forbid browsers to cache, sniff or render it", async () => {
    const { url } = await serve();
    const { headers } = await post(url, `${LOG_IN}/anon-user/login`, "{}");
    expect(headers.get("cache-control")).toBe("no-store");
    for (const response of [{ headers }, await fetch(`${url}/nothing`), await fetch(`${url}/healthz`)]) {
      expect(response.headers.get("x-content-type-options")).toBe("nosniff");
      expect(response.headers.get("content-security-policy")).toContain("default-src 'none'");
    }
  });

  test("of a proxy identify the client, even with invalid bytes", async () => {
    const { url } = await serve({ trustProxy: "127.0.0.1" });
    const guess = JSON.stringify({ username: "a@example.com", password: "wrong" });
    await post(
      url,
      `${LOG_IN}/local-userpass/register`,
      JSON.stringify({ email: "a@example.com", password: PASSWORD }),
    );
    let status = 0;
    for (let n = 0; n < 20 && status !== 429; n++) {
      const text =
        `POST ${LOG_IN}/local-userpass/login HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: \xff\xfe${n}, 198.51.100.7\r\n` +
        `Content-Length: ${guess.length}\r\n\r\n${guess}`;
      const connection = connect(url);
      connection.socket.write(Buffer.from(text, "latin1"));
      await until(() => connection.text.includes("\r\n\r\n"));
      status = Number(connection.text.slice(9, 12));
    }
    expect(status).toBe(429);
    // Another client of the same proxy is not rate limited.
    const other = await post(url, `${LOG_IN}/anon-user/login`, "{}", { "X-Forwarded-For": "198.51.100.8" });
    expect(other).toMatchObject({ status: 200 });
  });
});

test("limits the total size of unread responses", async () => {
  const { url } = await serve({ definition: openDefinition() });
  const token = await logIn(url);
  const document = JSON.parse(insertOf(900_000));
  for (let n = 0; n < 12; n++) {
    await post(url, CALL, JSON.stringify(document), { Authorization: `Bearer ${token}` });
  }
  const find = JSON.stringify({
    name: "find",
    service: "mongodb-atlas",
    arguments: [{ database: "db", collection: "c", query: {} }],
  });
  const before = process.memoryUsage().rss;
  const connections = Array.from({ length: 12 }, () => {
    const connection = connect(url);
    connection.socket.pause();
    connection.socket.write(
      `POST ${CALL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Length: ${find.length}\r\n\r\n${find}`,
    );
    return connection;
  });
  await new Promise((resolve) => setTimeout(resolve, 1500));
  expect(process.memoryUsage().rss - before).toBeLessThan(250 * 2 ** 20);
  for (const { socket } of connections) {
    socket.resume();
  }
  expect(await until(() => connections.some(({ text }) => text.includes(" 429 ")))).toBe(true);
});
