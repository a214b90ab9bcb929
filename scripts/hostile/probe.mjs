// Measures small requests of another user over HTTP, in a thread with its own event loop.
//
// The event loop of the hostile client is busy with arguments and responses. A response would wait
// there, and this time is not the server's. The remaining delay of this thread's event loop is
// measured too.
import http from "node:http";
import { parentPort, workerData } from "node:worker_threads";

/** Interval at which the event loop records that it has handled all input, in milliseconds. */
const LOOK = 2;
/** Time between two pairs of requests, in milliseconds. */
const PAUSE = 20;

const { url, appId, database, collection } = workerData;
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

/** Sends a request; resolves to the status and the body of the response. */
function send(route, body, token) {
  return new Promise((resolve, reject) => {
    const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
    const options = { method: "POST", agent, headers };
    const request = http.request(`${url}/api/client/v2.0/app/${appId}${route}`, options, (answer) => {
      const parts = [];
      answer.on("data", (part) => parts.push(part));
      answer.on("end", () => resolve({ status: answer.statusCode, body: JSON.parse(Buffer.concat(parts).toString()) }));
      answer.on("error", reject);
    });
    request.on("error", reject);
    request.end(JSON.stringify(body));
  });
}

/** The last time at which this event loop had handled all input. */
let looked = performance.now();
// The event loop handles input between a timer and an immediate of the same iteration.
const looking = setInterval(() => setImmediate(() => (looked = performance.now())), LOOK);

let running = true;
parentPort.once("message", () => (running = false));

const { body: session } = await send("/auth/providers/anon-user/login", {});
const user = session.user_id;
const call = (name, args) =>
  send(
    "/functions/call",
    { name, service: "mongodb-atlas", arguments: [{ database, collection, ...args }] },
    session.access_token,
  );

/** Durations of the requests until their responses were handled, in milliseconds. */
const wall = [];
/** The part of each duration for which the response had certainly not arrived. */
const server = [];
/** The rest of each duration, in which the response may have waited for this event loop. */
const own = [];
const failures = [];
let refused = 0;

const inserted = await call("insertOne", { document: { _id: user, owner: user, n: 0 } });
if (inserted.status !== 200) {
  failures.push(`another user's insert returned ${inserted.status}: ${JSON.stringify(inserted.body)}`);
}
parentPort.postMessage("ready");

while (running) {
  for (const [name, args] of [
    ["updateOne", { query: { _id: user }, update: { $inc: { n: 1 } } }],
    ["findOne", { query: { _id: user } }],
  ]) {
    const begun = performance.now();
    const { status, body } = await call(name, args);
    const took = performance.now() - begun;
    const waited = Math.max(0, looked - begun);
    wall.push(took);
    server.push(waited);
    own.push(took - waited);
    // The budget applies to this user too.
    if (body?.server_code === 50) {
      refused += 1;
    } else if (status !== 200) {
      failures.push(`another user's ${name} returned ${status}: ${JSON.stringify(body)}`);
    }
  }
  await new Promise((resolve) => setTimeout(resolve, PAUSE));
}

clearInterval(looking);
agent.destroy();
parentPort.postMessage({ wall, server, own, refused, failures });
