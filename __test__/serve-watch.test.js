"use strict";

// Change streams over HTTP: the wire format, the unmodified realm-web, and the end of sessions,
// servers and clients.

const http = require("node:http");
const net = require("node:net");
const RealmWeb = require("realm-web");
const { Realm, logInNew, openDefinition, serve, temporaryDirectory } = require("./helpers.js");

const { App, MetadataMode } = Realm;
const apps = [];

afterEach(async () => {
  await Promise.all(apps.splice(0).map((app) => app.close()));
});

function open(url, options = {}) {
  const app = new App({
    id: "test-app",
    baseUrl: url,
    metadata: { mode: MetadataMode.InMemory },
    logger: null,
    ...options,
  });
  apps.push(app);
  return app;
}

const collectionOf = (user) => user.mongoClient("mongodb-atlas").db("app").collection("things");

const soon = (promise, milliseconds = 10_000) =>
  Promise.race([promise, new Promise((resolve) => setTimeout(resolve, milliseconds, "nothing came").unref())]);

/**
 * Writes numbers until the stream reports an event, which means that it has begun. Returns the
 * number that was written last.
 */
async function beginToFollow(next, write) {
  let number = 0;
  do {
    number -= 1;
    await write(number);
  } while ((await soon(next, 200)) === "nothing came");
  return number;
}

/** Opens a stream with a raw HTTP request; `text()` returns the text that has arrived. */
async function raw(server, { query = "", token, request }) {
  const path = `/api/client/v2.0/app/test-app/functions/call?baas_request=${encodeURIComponent(
    Buffer.from(typeof request === "string" ? request : JSON.stringify(request)).toString("base64"),
  )}${query}`;
  const headers = { Accept: "text/event-stream", ...(token && { Authorization: `Bearer ${token}` }) };
  const response = await new Promise((resolve, reject) => {
    http.get(server.url + path, { headers, agent: false }, resolve).on("error", reject);
  });
  let text = "";
  response.setEncoding("utf8");
  response.on("data", (chunk) => {
    text += chunk;
  });
  const ended = new Promise((resolve) => {
    response.on("end", resolve);
    response.on("error", resolve);
  });
  return {
    status: response.statusCode,
    message: response.statusMessage,
    headers: response.headers,
    text: () => text,
    ended,
    destroy: () => response.destroy(),
    until: async (pattern) => {
      for (let tries = 0; tries < 500 && !pattern.test(text); tries++) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      expect(text).toMatch(pattern);
    },
  };
}

const watchRequest = (more = {}) => ({
  arguments: [{ database: "app", collection: "things", ...more }],
  name: "watch",
  service: "mongodb-atlas",
});

test("sends events in the SDK's wire format, and accepts the token in the query", async () => {
  const server = await serve({ definition: openDefinition() });
  const user = await logInNew(open(server.url));
  const query = `&baas_at=${user.accessToken}`;
  const ids = { ids: [{ $numberLong: "3" }, { $oid: "0123456789abcdef01234567" }] };
  const stream = await raw(server, { query, request: watchRequest(ids) });
  expect([stream.status, stream.headers["content-type"]]).toEqual([200, "text/event-stream"]);
  await stream.until(/^event: position\ndata: \{"_data":"[\w-]+"\}\n\n$/);
  const odd = "use some odd chars to force weird encoding %\n\r\n\\????>>>>";
  await collectionOf(user).insertMany([{ _id: 2 }, { _id: 3, text: odd }]);
  await stream.until(/fullDocument.*\n\n$/);
  const [data] = stream.text().match(/(?<=^data: ).*fullDocument.*$/m);
  expect(data).toContain("%25");
  const event = JSON.parse(data.replaceAll("%0A", "\n").replaceAll("%0D", "\r").replaceAll("%25", "%"));
  expect(event).toMatchObject({
    operationType: "insert",
    documentKey: { _id: { $numberInt: "3" } },
    fullDocument: { _id: { $numberInt: "3" }, text: odd },
    clusterTime: { $timestamp: { t: expect.any(Number), i: expect.any(Number) } },
  });
  stream.destroy();
});

test("rejects unauthorized and malformed stream requests before the stream begins", async () => {
  const server = await serve({ definition: openDefinition() });
  const user = await logInNew(open(server.url));
  const token = user.accessToken;
  const ask = async (options) => {
    const stream = await raw(server, options);
    await stream.ended;
    return { status: stream.status, message: stream.message, body: JSON.parse(stream.text()) };
  };
  const request = watchRequest();
  // The SDK sends an empty token for a user who is logged out.
  expect(await ask({ query: "&baas_at=", request })).toMatchObject({ status: 401, message: "Unauthorized" });
  expect(await ask({ request })).toMatchObject({ status: 401, body: { error_code: "MissingAuthReq" } });
  expect(await ask({ token, request: { ...request, name: "find" } })).toMatchObject({
    status: 400,
    body: { error: "'find' is not a stream of events" },
  });
  expect(await ask({ token, request: "{" })).toMatchObject({ status: 400 });
  expect(await ask({ token, request: watchRequest({ sort: {} }) })).toMatchObject({
    status: 400,
    body: { error: "watch does not take 'sort'", error_code: "InvalidParameter" },
  });
  const answer = await fetch(`${server.url}/api/client/v2.0/app/test-app/functions/call?baas_request=%%%`, {
    headers: { Authorization: `Bearer ${token}` },
  });
  expect(answer.status).toBe(400);
  await expect(user.callFunction("watch")).rejects.toThrow("function not found: 'watch'");
});

test("a stream ends with its session, even if another client ends the session", async () => {
  const server = await serve({ definition: openDefinition() });
  const user = await logInNew(open(server.url));
  // With the same options it would share the users of the first app.
  const elsewhere = open(server.url, { timeout: 10_000 });
  const same = await elsewhere.logIn(
    Realm.Credentials.emailPassword({ email: user.profile.email, password: "passw0rd" }),
  );
  const stream = collectionOf(user).watch();
  const first = stream.next();
  await beginToFollow(first, (number) => collectionOf(same).insertOne({ _id: number }));
  await first;
  const wire = await raw(server, { token: user.accessToken, request: watchRequest() });
  await wire.until(/position/);
  const next = (async () => {
    for await (const _event of stream) {
    }
  })();
  await elsewhere.deleteUser(same);
  await expect(soon(next)).rejects.toMatchObject({ code: 4301 });
  await wire.ended;
  expect(wire.text()).toMatch(/event: error\ndata: \{"error":"[^"]*","error_code":"InvalidSession"\}\n\n$/);
});

test("a stream resumes at the same event after a restart of the server", async () => {
  const directory = temporaryDirectory();
  const definition = openDefinition();
  const options = { definition, store: undefined, baseFilePath: directory };
  let server = await serve(options);
  const port = Number(new URL(server.url).port);
  const user = await logInNew(open(server.url));
  const stream = collectionOf(user).watch();
  const first = stream.next();
  const last = await beginToFollow(first, (number) => collectionOf(user).insertOne({ _id: number }));
  const seen = [(await first).value.documentKey._id];
  const more = (async () => {
    while (!seen.includes(1000)) {
      seen.push((await stream.next()).value.documentKey._id);
    }
  })();
  for (let round = 0; round < 3; round++) {
    await collectionOf(user).insertOne({ _id: round * 10 + 1 });
    const begun = Date.now();
    await server.close();
    expect(Date.now() - begun).toBeLessThan(5_000);
    // No server is running to send this event.
    const backend = await Realm.openBackend({ id: "test-app", ...options, logger: null });
    await backend.collection("app", "things").insertOne({ _id: round * 10 + 2 });
    await backend.close();
    server = await serve({ ...options, port });
    await collectionOf(user).insertOne({ _id: round * 10 + 3 });
  }
  await collectionOf(user).insertOne({ _id: 1000 });
  expect(await soon(more, 30_000)).toBeUndefined();
  const numbers = [...Array(3).keys()].flatMap((round) => [1, 2, 3].map((each) => round * 10 + each));
  expect(seen.filter((_id) => _id > 0)).toEqual([...numbers, 1000]);
  expect(seen.filter((_id) => _id < 0).at(-1)).toBe(last);
}, 60_000);

test("accepts large stream requests, and reports the number of streams in the metrics", async () => {
  const server = await serve({ definition: openDefinition(), metricsPort: 0 });
  const user = await logInNew(open(server.url));
  const ids = Array.from({ length: 20_000 }, (_, number) => `not there ${number}`);
  const stream = collectionOf(user).watch({ ids: [...ids, "here"] });
  const next = stream.next();
  await beginToFollow(next, async () => {
    await collectionOf(user).deleteOne({ _id: "here" });
    await collectionOf(user).insertOne({ _id: "here" });
  });
  expect((await next).value.documentKey).toEqual({ _id: "here" });
  const streams = async () =>
    (await (await fetch(`${server.metricsUrl}/metrics`)).text()).match(/^userkeep_event_streams .*$/m)[0];
  expect(await streams()).toBe("userkeep_event_streams 1");
  await stream.return();
  for (let tries = 0; tries < 100 && (await streams()) !== "userkeep_event_streams 0"; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  expect(await streams()).toBe("userkeep_event_streams 0");
});

test("a stream may last longer than the request timeout", async () => {
  const server = await serve({ definition: openDefinition() });
  const user = await logInNew(open(server.url, { timeout: 1_000 }));
  const stream = collectionOf(user).watch();
  const first = stream.next();
  await beginToFollow(first, (number) => collectionOf(user).insertOne({ _id: number }));
  await first;
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  const next = stream.next();
  await collectionOf(user).insertOne({ _id: 1 });
  let event = await next;
  while (event.value.documentKey._id < 0) {
    event = await soon(stream.next());
  }
  expect(event.value.documentKey).toEqual({ _id: 1 });
});

test("disconnects a client that does not read its stream", async () => {
  const server = await serve({ definition: openDefinition(), clientTimeout: 500 });
  const user = await logInNew(open(server.url));
  const socket = net.connect(Number(new URL(server.url).port), "127.0.0.1");
  const request = Buffer.from(JSON.stringify(watchRequest())).toString("base64");
  socket.write(
    `GET /api/client/v2.0/app/test-app/functions/call?baas_request=${encodeURIComponent(request)} HTTP/1.1\r\n` +
      `Host: x\r\nAuthorization: Bearer ${user.accessToken}\r\n\r\n`,
  );
  await new Promise((resolve) => socket.once("data", resolve));
  socket.pause();
  const text = "x".repeat(1_000_000);
  const rss = process.memoryUsage().rss;
  for (let number = 0; number < 60; number++) {
    await collectionOf(user).insertOne({ text });
  }
  const closed = new Promise((resolve) => socket.once("close", resolve));
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  socket.on("error", () => {});
  let read = 0;
  socket.on("data", (chunk) => {
    read += chunk.length;
  });
  socket.resume();
  await soon(closed);
  expect(read).toBeLessThan(30_000_000);
  expect(process.memoryUsage().rss - rss).toBeLessThan(400_000_000);
}, 60_000);

test("realm-web watches with filters and ids, and its generators end", async () => {
  const server = await serve({ definition: openDefinition() });
  const app = new RealmWeb.App({ id: "test-app", baseUrl: server.url });
  const user = await app.logIn(RealmWeb.Credentials.anonymous(false));
  const collection = collectionOf(user);
  for (const options of [undefined, { filter: { "fullDocument.hello": "%world" } }, { ids: ["a"] }]) {
    const stream = collection.watch(options);
    const first = stream.next();
    const add = async (number) => {
      await collection.deleteOne({ _id: "a" });
      await collection.insertOne({ _id: "a", hello: "%world", number });
    };
    await beginToFollow(first, add);
    const { value } = await first;
    expect(value.documentKey).toEqual({ _id: "a" });
    expect(["insert", "delete"]).toContain(value.operationType);
    const ended = stream.return();
    await collection.deleteOne({ _id: "a" });
    await soon(ended);
  }
});
