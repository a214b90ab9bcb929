// Measures small requests of another user over HTTP, in a thread that has its own event loop and does nothing else.
//
// The client of the hostile operations keeps its own event loop busy with their arguments and answers. An answer of the
// server would wait there, and that time is not the server's. What is left of such time here is measured too.
import http from "node:http";
import { parentPort, workerData } from "node:worker_threads";

/** Time between two looks at what has arrived, in milliseconds. */
const LOOK = 2;
/** Time between two pairs of requests, in milliseconds. */
const PAUSE = 20;

const { url, appId, database, collection } = workerData;
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

/** Sends a request; resolves with its status and body. */
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

/** When this event loop last had handled all that had arrived. */
let looked = performance.now();
// Input is handled between a timer and an immediate of the same turn.
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

/** Durations of the requests until their answers were handled, in milliseconds. */
const wall = [];
/** The part of each in which the answer had not arrived when this event loop last looked. */
const server = [];
/** The rest of each: the answer may have waited for this event loop. */
const own = [];
const failures = [];
let refused = 0;

const inserted = await call("insertOne", { document: { _id: user, owner: user, n: 0 } });
if (inserted.status !== 200) {
  failures.push(`another user's insert was answered with ${inserted.status}: ${JSON.stringify(inserted.body)}`);
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
    // The budget is the other user's, too.
    if (body?.server_code === 50) {
      refused += 1;
    } else if (status !== 200) {
      failures.push(`another user's ${name} was answered with ${status}: ${JSON.stringify(body)}`);
    }
  }
  await new Promise((resolve) => setTimeout(resolve, PAUSE));
}

clearInterval(looking);
agent.destroy();
parentPort.postMessage({ wall, server, own, refused, failures });
