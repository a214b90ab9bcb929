"use strict";

// The memory of a server that decodes large bodies, in a process of its own.

const { spawn } = require("node:child_process");
const fs = require("node:fs");
const net = require("node:net");
const path = require("node:path");
const { ROOT, openDefinition } = require("../helpers.js");

const CLI = path.join(ROOT, "bin/userkeep.js");
const API = "/api/client/v2.0/app/test-app";
const CALL = `${API}/functions/call`;
const MB = 2 ** 20;

/**
 * Beside the BSON: a piece that is not decoded yet, smaller buffers that the BSON was in, and
 * what the allocator keeps.
 */
const SLACK = 24 * MB;

const describeOnLinux = process.platform === "linux" ? describe : describe.skip;

const children = [];
const sockets = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) {
    socket.destroy();
  }
  for (const { child, exited } of children.splice(0)) {
    child.kill("SIGKILL");
    await exited;
  }
});

/** A server in a process of its own, with the token of a user. */
async function startServer() {
  const options = ["--definition", openDefinition(), "--store", "memory:", "--app", "test-app", "--port", "0"];
  const child = spawn(process.execPath, [CLI, "serve", ...options], { stdio: ["ignore", "pipe", "ignore"] });
  children.push({ child, exited: new Promise((resolve) => child.on("exit", resolve)) });
  const url = await new Promise((resolve) => child.stdout.on("data", (data) => resolve(/at (\S+)/.exec(data)[1])));
  const answer = await fetch(`${url}${API}/auth/providers/anon-user/login`, { method: "POST", body: "{}" });
  const { access_token: token } = await answer.json();
  const memory = (name) =>
    1024 * Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(fs.readFileSync(`/proc/${child.pid}/status`, "utf8"))[1]);
  const server = { url, token, memory };
  // The first large call makes the server load code, so it comes before memory is measured.
  const warm = await send(server, bodyOf(JSON.stringify("x".repeat(MB))));
  expect((await warm.finish()).status).toBe(200);
  return server;
}

/** The body of a call that inserts a document with a value, which is given as JSON. */
function bodyOf(value, argument = "document") {
  const target = `"database":"db","collection":"c","${argument}":{"value":${value}}`;
  return Buffer.from(`{"name":"insertOne","service":"mongodb-atlas","arguments":[{${target}}]}`);
}

/** Sends a body but for its last byte, which `finish` sends. */
async function send({ url, token }, body) {
  const { hostname, port } = new URL(url);
  const socket = net.connect({ host: hostname, port: Number(port) });
  sockets.push(socket);
  const connection = { text: "" };
  socket.setEncoding("latin1");
  socket.on("error", () => {});
  const answered = new Promise((resolve) => {
    socket.on("data", (data) => {
      connection.text += data;
      if (connection.text.includes("\r\n\r\n")) {
        resolve();
      }
    });
    socket.on("close", resolve);
  });
  const head = `POST ${CALL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n`;
  socket.write(`${head}Content-Length: ${body.length}\r\n\r\n`);
  await new Promise((resolve) => socket.write(body.subarray(0, -1), resolve));
  connection.finish = async () => {
    socket.write(body.subarray(-1));
    await answered;
    return { status: Number(connection.text.slice(9, 12)), text: connection.text };
  };
  return connection;
}

/** Waits until the server has decoded what it was sent: its memory does not change any more. */
async function settle({ memory }) {
  for (let last = -1, same = 0; same < 5; ) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    const now = memory("VmRSS");
    same = Math.abs(now - last) < MB / 4 ? same + 1 : 0;
    last = now;
  }
}

const escaped = (length) => `"${"\\u0041".repeat(length)}"`;
const base64 = (length) => Buffer.alloc(length, 7).toString("base64");

describeOnLinux("the memory of a server that has received a document follows its BSON", () => {
  test.each([
    ["text", 16, 16, () => `"${"x".repeat(15.9 * MB)}"`],
    ["text of which all is escaped", 10, 60, () => escaped(10 * MB)],
    ["numbers", 15, 23, () => `[${'{"$numberInt":"5"},'.repeat(1.2 * MB)}1]`],
    ["numbers among line breaks", 15, 58, () => `[${`{"$numberInt":"5"},${"\n".repeat(30)}`.repeat(1.2 * MB)}1]`],
    ["binary data", 15, 20, () => `{"$binary":{"base64":"${base64(15 * MB)}","subType":"00"}}`],
    ["an unknown member", 0, 30, () => `1}},5],"unknown":[${'"text",'.repeat(4.3 * MB)}1],"other":[{"a":{"b":1`],
  ])("of %s: about %d MB, sent as %d MB", async (_name, bson, wire, value) => {
    const server = await startServer();
    const body = bodyOf(value());
    expect(body.length / MB).toBeGreaterThan(wire - 1);
    const before = server.memory("VmRSS");
    const connection = await send(server, body);
    await settle(server);
    const growth = server.memory("VmRSS") - before;
    expect(growth).toBeGreaterThan((bson / 2) * MB - 1);
    expect(growth).toBeLessThan(bson * MB + SLACK);
    // No copy was made on the way.
    expect(server.memory("VmHWM") - before).toBeLessThan(bson * MB + SLACK);
    // Only the call with the unknown member has two arguments.
    expect((await connection.finish()).status).toBe(bson === 0 ? 400 : 200);
  });
});

describeOnLinux("the share of a client counts bodies as they are decoded", () => {
  test("three bodies of 54 MB whose documents have 9 MB fit beside each other", async () => {
    const server = await startServer();
    const body = bodyOf(escaped(9 * MB));
    expect(body.length).toBeGreaterThan(54 * MB);
    const connections = await Promise.all(Array.from({ length: 3 }, () => send(server, body)));
    await settle(server);
    expect(connections.map(({ text }) => text)).toEqual(["", "", ""]);
    for (const { finish } of connections) {
      expect((await finish()).status).toBe(200);
    }
  });

  test("a fourth is refused, and bodies fit again when the others have been handled", async () => {
    const server = await startServer();
    const body = bodyOf(`"${"x".repeat(9 * MB)}"`);
    const held = await Promise.all(Array.from({ length: 3 }, () => send(server, body)));
    await settle(server);
    const refused = await send(server, body);
    const answer = await refused.finish();
    expect(answer.status).toBe(429);
    expect(answer.text.toLowerCase()).toContain("retry-after:");
    for (const { finish } of held) {
      expect((await finish()).status).toBe(200);
    }
    expect((await (await send(server, body)).finish()).status).toBe(200);
  });

  test.each([
    ["code", () => `{"$code":"${"x".repeat(15.9 * MB)}"}`],
    ["a scope", () => `{"$code":"","$scope":{"a":[${'{"$numberDouble":"0.12345678901"},'.repeat(0.85 * MB)}1]}}`],
  ])("a document of %s fits, though its text is held until it ends", async (_name, value) => {
    const server = await startServer();
    const connection = await send(server, bodyOf(value()));
    expect((await connection.finish()).status).toBe(200);
  });
});
