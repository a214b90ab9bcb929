"use strict";

// One user starts many concurrent operations, streams and unread responses. The server must still
// serve other users, and its memory must stay bounded.

const net = require("node:net");
const Realm = require("../..");
const { PASSWORD, openApp, openBackend, openDefinition, rulesFile, serve, temporaryDirectory, writeDefinition } =
  require("../helpers.js");

const API = "/api/client/v2.0";
const CALL = `${API}/app/test-app/functions/call`;
const LOG_IN = `${API}/app/test-app/auth/providers`;
const MB = 2 ** 20;

/** Returns the address of a new store in a file, which serves several reads at the same time. */
const file = () => `sqlite:${temporaryDirectory()}/store.sqlite`;

const sockets = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) {
    socket.destroy();
  }
});

async function post(url, path, body, headers = {}) {
  const response = await fetch(url + path, { method: "POST", body: JSON.stringify(body), headers });
  const text = await response.text();
  return { status: response.status, body: text && JSON.parse(text) };
}

async function logIn(url) {
  return (await post(url, `${LOG_IN}/anon-user/login`, {})).body.access_token;
}

const call = (name, options) => ({
  name,
  service: "mongodb-atlas",
  arguments: [{ database: "db", collection: "c", ...options }],
});

/** Sends a request. The response stays unread until the caller calls `socket.resume()`. */
function sendUnread(url, path, body, headers) {
  const { hostname, port } = new URL(url);
  const text = JSON.stringify(body);
  const socket = net.connect({ host: hostname, port: Number(port) });
  sockets.push(socket);
  const fields = Object.entries({ Host: "x", "Content-Length": Buffer.byteLength(text), ...headers });
  socket.on("error", () => {});
  socket.pause();
  socket.write(
    `POST ${path} HTTP/1.1\r\n${fields.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n${text}`,
  );
  const connection = { socket, text: "" };
  socket.setEncoding("latin1");
  socket.on("data", (data) => {
    connection.text = (connection.text + data).slice(0, 200_000);
  });
  return connection;
}

/** `slow` is an aggregation that exceeds every time limit: a million steps for each document. */
const range = { $range: [0, 1000] };
const slow = call("aggregate", {
  pipeline: [
    { $project: { x: { $size: { $map: { input: range, in: { $size: { $map: { input: range, in: "$$this" } } } } } } } },
    { $match: { x: -1 } },
  ],
});

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Makes `count` successive requests; returns the longest duration in milliseconds. */
async function longestOf(count, request) {
  let longest = 0;
  for (let n = 0; n < count; n++) {
    const begun = performance.now();
    expect(await request()).toMatchObject({ status: 200 });
    longest = Math.max(longest, performance.now() - begun);
    await pause(20);
  }
  return longest;
}

/**
 * Starts a measurement of resident memory. Returns a function that stops it and returns the
 * maximum growth in bytes.
 */
function watchMemory() {
  const before = process.memoryUsage().rss;
  let most = 0;
  const look = () => {
    most = Math.max(most, process.memoryUsage().rss - before);
  };
  const timer = setInterval(look, 20);
  return () => {
    look();
    clearInterval(timer);
    return most;
  };
}

test("unread change streams share events in memory, and end when they exceed the user's memory limit", async () => {
  const { url } = await serve({ definition: openDefinition(), store: file() });
  const [token, other] = [await logIn(url), await logIn(url)];
  const headers = { Authorization: `Bearer ${token}` };
  await post(url, CALL, call("insertOne", { document: { _id: 1 } }), headers);
  const watch = (count) =>
    Array.from({ length: count }, () =>
      sendUnread(url, CALL, call("watch", {}), { ...headers, Accept: "text/event-stream" }),
    );
  // A request of 300 bytes creates a document of 10 MB.
  const grow = (n) => {
    const update = [{ $set: { big: { $range: [n, 900_000 + n] } } }];
    return post(url, CALL, call("updateOne", { query: { _id: 1 }, update }), headers);
  };
  const streams = watch(120);
  await pause(1500);
  const most = watchMemory();
  for (let n = 0; n < 6; n++) {
    expect(await grow(n)).toMatchObject({ status: 200 });
    // A stream that begins now sends only the later events.
    streams.push(...watch(5));
    await pause(300);
  }
  const find = () => post(url, CALL, call("findOne", { query: { _id: 2 } }), { Authorization: `Bearer ${other}` });
  expect(await longestOf(40, find)).toBeLessThan(1000);
  expect(most()).toBeLessThan(700 * MB);
  for (const { socket } of streams) {
    socket.resume();
  }
  await pause(3000);
  const ended = streams.filter(({ text }) => text.includes("event: error") && text.includes("exceeds the limit"));
  expect(ended.length).toBeGreaterThan(5);
});

test("many clients at one address receive all large events if they read promptly", async () => {
  const { url } = await serve({ definition: openDefinition(), store: file() });
  const tokens = await Promise.all(Array.from({ length: 20 }, () => logIn(url)));
  const streams = Array.from({ length: 100 }, (_, n) => {
    const headers = { Authorization: `Bearer ${tokens[n % 20]}`, Accept: "text/event-stream" };
    const stream = sendUnread(url, CALL, call("watch", {}), headers);
    stream.bytes = 0;
    stream.socket.on("data", (data) => {
      stream.bytes += data.length;
    });
    stream.socket.resume();
    return stream;
  });
  await pause(1500);
  for (let n = 0; n < 5; n++) {
    const document = { _id: n, text: "x".repeat(1_000_000) };
    await post(url, CALL, call("insertOne", { document }), { Authorization: `Bearer ${tokens[0]}` });
  }
  for (const end = Date.now() + 20_000; Date.now() < end && !streams.every(({ bytes }) => bytes > 5_000_000); ) {
    await pause(100);
  }
  expect(streams.filter(({ bytes }) => bytes > 5_000_000)).toHaveLength(100);
});

test("limits unread responses of writes, and reports in the error that the write was carried out", async () => {
  const { url } = await serve({ definition: openDefinition(), store: file() });
  const token = await logIn(url);
  const headers = { Authorization: `Bearer ${token}` };
  // 2.5 MB of BSON are 15 MB of JSON, which needs six bytes for each control character.
  const document = { _id: 1, text: "\u0001".repeat(2_500_000), n: 0 };
  expect(await post(url, CALL, call("insertOne", { document }), headers)).toMatchObject({ status: 200 });
  const most = watchMemory();
  const increment = call("findOneAndUpdate", { filter: { _id: 1 }, update: { $inc: { n: 1 } } });
  const unread = Array.from({ length: 30 }, () => sendUnread(url, CALL, increment, headers));
  await pause(4000);
  expect(most()).toBeLessThan(600 * MB);
  for (const { socket } of unread) {
    socket.resume();
  }
  await pause(1000);
  const refused = unread.filter(({ text }) => text.includes(" 400 ") && text.includes("the write was carried out"));
  expect(refused.length).toBeGreaterThan(15);
  const counted = await post(url, CALL, call("findOne", { query: { _id: 1 }, project: { n: 1 } }), headers);
  expect(Number(counted.body.n.$numberInt)).toBe(30);
});

test("a change stream delivers large and small events in order", async () => {
  const { url } = await serve({ definition: openDefinition(), store: file() });
  const app = new Realm.App({ id: "test-app", baseUrl: url, metadata: { mode: Realm.MetadataMode.InMemory } });
  const user = await app.logIn(Realm.Credentials.anonymous());
  const collection = user.mongoClient("mongodb-atlas").db("db").collection("c");
  const stream = collection.watch();
  const events = [];
  const reading = (async () => {
    for await (const event of stream) {
      events.push(event);
      if (events.length === 5) {
        return;
      }
    }
  })();
  await pause(300);
  for (let n = 0; n < 5; n++) {
    await collection.insertOne({ _id: n, text: n % 2 ? "100 %\r\n".repeat(100_000) : "small" });
  }
  await reading;
  expect(events.map(({ fullDocument }) => [fullDocument._id, fullDocument.text.length])).toEqual([
    [0, 5],
    [1, 700_000],
    [2, 5],
    [3, 700_000],
    [4, 5],
  ]);
  expect(events[1].fullDocument.text.startsWith("100 %\r\n100")).toBe(true);
});

test("a stream releases its share of memory after it has sent a large event", async () => {
  const { url } = await serve({ definition: openDefinition(), store: file() });
  const token = await logIn(url);
  const headers = { Authorization: `Bearer ${token}` };
  const streams = [1, 2].map(() =>
    sendUnread(url, CALL, call("watch", {}), { ...headers, Accept: "text/event-stream" }),
  );
  for (const { socket } of streams) {
    socket.resume();
  }
  await pause(500);
  // Each event, as JSON, needs more than half of a user's share of memory.
  for (let n = 0; n < 2; n++) {
    const document = { _id: n, list: { text: "x".repeat(9_000_000), other: "y".repeat(2_000_000) } };
    expect(await post(url, CALL, call("insertOne", { document }), headers)).toMatchObject({ status: 200 });
    await pause(1500);
  }
  const answers = await Promise.all([1, 2].map(() => post(url, CALL, call("find", { query: { _id: 0 } }), headers)));
  expect(answers.map(({ status }) => status)).toEqual([200, 200]);
});

test("slow operations of several users do not block another user's operation", async () => {
  const { url } = await serve({ definition: openDefinition(), store: file() });
  const tokens = await Promise.all(Array.from({ length: 6 }, () => logIn(url)));
  const other = await logIn(url);
  await post(url, CALL, call("insertOne", { document: { _id: 1 } }), { Authorization: `Bearer ${other}` });
  const documents = Array.from({ length: 200 }, (_, n) => ({ _id: 100 + n }));
  await post(url, CALL, call("insertMany", { documents }), { Authorization: `Bearer ${other}` });
  const controller = new AbortController();
  const requests = tokens.flatMap((token) =>
    [1, 2].map(() => {
      const options = { method: "POST", body: JSON.stringify(slow), headers: { Authorization: `Bearer ${token}` } };
      return fetch(url + CALL, { ...options, signal: controller.signal }).catch(() => {});
    }),
  );
  await pause(500);
  const sum = call("aggregate", { pipeline: [{ $group: { _id: null, count: { $sum: 1 } } }] });
  const begun = performance.now();
  expect(await post(url, CALL, sum, { Authorization: `Bearer ${other}` })).toMatchObject({ status: 200 });
  expect(performance.now() - begun).toBeLessThan(6000);
  controller.abort();
  await Promise.all(requests);
});

test("concurrent writes use a bounded amount of memory", async () => {
  const { url } = await serve({ definition: openDefinition(), store: file() });
  const token = await logIn(url);
  const headers = { Authorization: `Bearer ${token}` };
  for (let n = 0; n < 10; n++) {
    await post(url, CALL, call("insertOne", { document: { _id: n, text: "x".repeat(2_000_000), n: 0 } }), headers);
  }
  const most = watchMemory();
  const update = call("updateMany", { query: {}, update: { $inc: { n: 1 } } });
  const answers = await Promise.all(Array.from({ length: 60 }, () => post(url, CALL, update, headers)));
  expect(most()).toBeLessThan(900 * MB);
  const done = answers.filter(({ status }) => status === 200).length;
  expect(done).toBeGreaterThan(0);
  // A write that timed out or conflicted too often must not have changed any document.
  const counts = await post(url, CALL, call("find", { query: {}, project: { n: 1, _id: 0 } }), headers);
  expect(counts.body.map(({ n }) => Number(n.$numberInt))).toEqual(Array(10).fill(done));
});

test("slow operations of one user block neither other users nor the user's small operations", async () => {
  const { url } = await serve({ definition: openDefinition(), store: file(), maxTimeMS: 3000 });
  const [token, other] = [await logIn(url), await logIn(url)];
  await post(url, CALL, call("insertOne", { document: { _id: 1 } }), { Authorization: `Bearer ${token}` });
  const documents = Array.from({ length: 200 }, (_, n) => ({ _id: 100 + n }));
  await post(url, CALL, call("insertMany", { documents }), { Authorization: `Bearer ${other}` });
  const most = watchMemory();
  const answers = Array.from({ length: 200 }, () => post(url, CALL, slow, { Authorization: `Bearer ${token}` }));
  await pause(200);
  const find = (token) => () =>
    post(url, CALL, call("findOne", { query: { _id: 1 } }), { Authorization: `Bearer ${token}` });
  const sum = { pipeline: [{ $group: { _id: null, count: { $sum: 1 } } }] };
  const aggregate = () => post(url, CALL, call("aggregate", sum), { Authorization: `Bearer ${other}` });
  expect(await longestOf(20, find(other))).toBeLessThan(500);
  expect(await longestOf(20, aggregate)).toBeLessThan(500);
  expect(await longestOf(20, find(token))).toBeLessThan(500);
  for (const { status, body } of await Promise.all(answers)) {
    expect([status, body.server_code]).toEqual([400, 50]);
  }
  expect(most()).toBeLessThan(500 * MB);
});

test("limits the memory of one user's concurrent operations with large results", async () => {
  const { url } = await serve({ definition: openDefinition(), store: file(), maxTimeMS: 2000 });
  const token = await logIn(url);
  const headers = { Authorization: `Bearer ${token}` };
  const documents = Array.from({ length: 50 }, (_, n) => ({ _id: n, list: Array.from({ length: 500 }, () => n) }));
  await post(url, CALL, call("insertMany", { documents }), headers);
  const most = watchMemory();
  // The aggregation needs more than 100 MB, which is the limit of $push.
  const heavy = call("aggregate", {
    pipeline: [
      { $unwind: "$list" },
      {
        $project: {
          text: {
            $reduce: { input: { $range: [0, 200] }, initialValue: "", in: { $concat: ["$$value", "x".repeat(100)] } },
          },
        },
      },
      { $group: { _id: null, all: { $push: "$text" } } },
    ],
  });
  const answers = await Promise.all(Array.from({ length: 60 }, () => post(url, CALL, heavy, headers)));
  for (const { status, body } of answers) {
    expect(status).toBe(400);
    expect([50, 292]).toContain(body.server_code);
  }
  expect(most()).toBeLessThan(1200 * MB);
});

test("many writes of one user do not delay another user's write until they have finished", async () => {
  const app = await openApp({ definition: openDefinition(), store: file() });
  const credentials = Realm.Credentials.anonymous(false);
  const [user, other] = [await app.logIn(credentials), await app.logIn(credentials)];
  const of = (user) => user.mongoClient("mongodb-atlas").db("db").collection("c");
  await of(user).insertOne({ _id: 1, list: Array.from({ length: 2000 }, (_, n) => n) });
  const update = [
    { $set: { sum: { $size: "$list" }, list: { $map: { input: "$list", in: { $add: ["$$this", 1] } } } } },
  ];
  const writes = Array.from({ length: 300 }, () => of(user).updateOne({ _id: 1 }, update));
  const begun = performance.now();
  await of(other).insertOne({ _id: 2 });
  const took = performance.now() - begun;
  await Promise.all(writes);
  const all = performance.now() - begun;
  expect(took).toBeLessThan(Math.max(150, all / 4));
  expect(await of(user).findOne({ _id: 1 }, { projection: { list: { $slice: 1 } } })).toMatchObject({ list: [300] });
});

test("rejects a write that changes too many index entries, and writes nothing", async () => {
  const directory = temporaryDirectory();
  const settings = { id: "keys", definition: openDefinition(), baseFilePath: directory, store: file() };
  const backend = await openBackend(settings);
  await backend.collection("db", "c").createIndexes([{ key: { list: 1 } }]);
  const app = await openApp({ ...settings, maxTimeMS: 20_000 });
  const collection = (await app.logIn(Realm.Credentials.anonymous()))
    .mongoClient("mongodb-atlas")
    .db("db")
    .collection("c");
  await collection.insertOne({ _id: 1, list: Array.from({ length: 5000 }, (_, n) => n) });
  await collection.insertOne({ _id: 2 });
  for (const write of [
    () => collection.updateOne({ _id: 2 }, [{ $set: { list: { $range: [0, 400_000] } } }]),
    () => collection.insertOne({ _id: 3, list: Array.from({ length: 20_000 }, (_, n) => n) }),
    () => collection.updateOne({ _id: 4 }, [{ $set: { list: { $range: [0, 20_000] } } }], { upsert: true }),
  ]) {
    await expect(write()).rejects.toMatchObject({
      code: 4304,
      message: expect.stringContaining("entries to indexes; nothing was written"),
    });
  }
  // The limit also applies to index entries that a write removes.
  for (let n = 10; n < 20; n++) {
    await collection.insertOne({ _id: n, list: Array.from({ length: 5000 }, (_, k) => k) });
  }
  await expect(collection.deleteMany({ _id: { $gte: 10 } })).rejects.toMatchObject({ code: 4304 });
  expect(await collection.deleteMany({ _id: { $in: [10, 11] } })).toMatchObject({ deletedCount: 2 });
  await collection.deleteMany({ _id: { $in: [12, 13] } });
  for (let n = 14; n < 20; n++) {
    await collection.deleteOne({ _id: n });
  }
  expect(await collection.count({ list: 4999 })).toBe(1);
  expect(await collection.count()).toBe(2);
  // The backend handle has no such limit.
  await backend.collection("db", "c").insertOne({ _id: 5, list: Array.from({ length: 20_000 }, (_, n) => n) });
  expect(await collection.deleteOne({ _id: 5 })).toMatchObject({ deletedCount: 1 });
});

test("rejects session refreshes while too many unread responses contain custom data", async () => {
  const definition = writeDefinition({
    "auth/custom_user_data.json": {
      enabled: true,
      mongo_service_name: "mongodb-atlas",
      database_name: "db",
      collection_name: "profiles",
      user_id_field: "userId",
    },
    "auth/providers.json": {
      "local-userpass": {
        name: "local-userpass",
        type: "local-userpass",
        disabled: false,
        config: { autoConfirm: true },
      },
    },
    [rulesFile("db", "profiles")]: {
      roles: [{ name: "all", apply_when: {}, read: true, write: true, insert: true, delete: true, search: true }],
    },
  });
  const { url } = await serve({ definition, store: file() });
  const email = "large@example.com";
  await post(url, `${LOG_IN}/local-userpass/register`, { email, password: PASSWORD });
  const session = (await post(url, `${LOG_IN}/local-userpass/login`, { username: email, password: PASSWORD })).body;
  const insert = call("insertOne", { document: { userId: session.user_id, text: "x".repeat(8_000_000) } });
  insert.arguments[0].collection = "profiles";
  expect(await post(url, CALL, insert, { Authorization: `Bearer ${session.access_token}` })).toMatchObject({
    status: 200,
  });
  const most = watchMemory();
  const headers = { Authorization: `Bearer ${session.refresh_token}`, "Userkeep-Custom-Data": "true" };
  const unread = Array.from({ length: 60 }, () => sendUnread(url, `${API}/auth/session`, {}, headers));
  await pause(2500);
  expect(most()).toBeLessThan(450 * MB);
  for (const { socket } of unread) {
    socket.resume();
  }
  await pause(500);
  expect(unread.filter(({ text }) => text.includes(" 429 ")).length).toBeGreaterThan(30);
  const refreshed = await post(url, `${API}/auth/session`, {}, headers);
  expect(refreshed).toMatchObject({ status: 201 });
  expect(refreshed.body.custom_data.text).toHaveLength(8_000_000);
});
