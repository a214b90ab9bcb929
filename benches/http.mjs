// Measures `userkeep serve` under load, compared with (a) a node:http server that returns a
// constant body, and (b) one that does the same work. Each server has its own process; this one
// runs the clients. Rounds alternate; the results are medians.
//
//   npm run bench:http [-- --requests 4000 --clients 16 --rounds 5]
import { fork } from "node:child_process";
import { once } from "node:events";
import http from "node:http";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    requests: { type: "string", default: "4000" },
    clients: { type: "string", default: "16" },
    rounds: { type: "string", default: "5" },
  },
});
const REQUESTS = Number(values.requests);
const CLIENTS = Number(values.clients);
const ROUNDS = Number(values.rounds);
const FLOOD_CLIENTS = 32;
const OPERATIONS = ["findOne", "updateOne", "refresh"];
const ATTACKER = fileURLToPath(new URL("http/attacker.mjs", import.meta.url));
const SERVERS = fileURLToPath(new URL("http/servers.mjs", import.meta.url));

async function start(name) {
  const child = fork(SERVERS, [name]);
  const [requests] = await once(child, "message");
  const cpu = async () => {
    child.send("cpu");
    const [{ user, system }] = await once(child, "message");
    return user + system;
  };
  return { name, child, requests, cpu };
}

/** Sends one request and reads the response; resolves to the duration in milliseconds. */
function send(agent, url, { path, token, body }) {
  return new Promise((resolve, reject) => {
    const begun = performance.now();
    const headers = { "Content-Length": Buffer.byteLength(body), "Content-Type": "application/json" };
    if (token) {
      headers.Authorization = `Bearer ${token}`;
    }
    const request = http.request(url + path, { method: "POST", agent, headers }, (response) => {
      response.on("end", () => {
        if (response.statusCode < 300) {
          resolve(performance.now() - begun);
        } else {
          reject(new Error(`${path} returned ${response.statusCode}`));
        }
      });
      response.resume();
    });
    request.on("error", reject);
    request.end(body);
  });
}

/** Sends `count` requests over persistent connections; resolves to percentiles in milliseconds. */
async function load({ url, ...requests }, operation, count) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: CLIENTS });
  const times = [];
  let left = count;
  const client = async () => {
    while (left-- > 0) {
      times.push(await send(agent, url, requests[operation]));
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
  agent.destroy();
  times.sort((a, b) => a - b);
  return { p50: times[Math.floor(times.length / 2)], p99: times[Math.floor(times.length * 0.99)] };
}

async function measure(server, operation) {
  const before = await server.cpu();
  const times = await load(server.requests, operation, REQUESTS);
  return { ...times, cpu: ((await server.cpu()) - before) / REQUESTS };
}

const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
const medians = (rounds) =>
  Object.fromEntries(["cpu", "p50", "p99"].map((key) => [key, median(rounds.map((round) => round[key]))]));

const servers = await Promise.all(["userkeep", "canned", "same work"].map(start));
const [ours] = servers;
const results = new Map();
for (let round = 0; round <= ROUNDS; round++) {
  for (const operation of OPERATIONS) {
    for (const server of servers) {
      const measured = await measure(server, operation);
      // The first round only warms up.
      if (round > 0) {
        const key = `${operation} ${server.name}`;
        results.set(key, [...(results.get(key) ?? []), measured]);
      }
    }
  }
}

console.log(`${CLIENTS} clients, ${REQUESTS} requests per round, medians of ${ROUNDS} rounds`);
console.log("             server       CPU/request       p50        p99    userkeep CPU/server CPU");
for (const operation of OPERATIONS) {
  const own = medians(results.get(`${operation} userkeep`));
  for (const { name } of servers) {
    const { cpu, p50, p99 } = medians(results.get(`${operation} ${name}`));
    const columns = [`${cpu.toFixed(1)} µs`, `${p50.toFixed(2)} ms`, `${p99.toFixed(2)} ms`];
    const ratio = name === "userkeep" ? "" : `${(own.cpu / cpu).toFixed(2)}×`.padStart(14);
    const [first, ...rest] = columns;
    console.log(
      `${operation.padEnd(12)} ${name.padEnd(10)} ${first.padStart(13)} ${rest.map((c) => c.padStart(10)).join(" ")}${ratio}`,
    );
  }
}

// Measures findOne alone and during a flood of log-ins: from one address, which is soon rate
// limited, and without a rate limit, so that the server checks every password.
for (const [name, server] of [
  ["one address", ours],
  ["everywhere", await start("userkeep unlimited")],
]) {
  const [quiet, flooded] = [[], []];
  const all = { answered: 0, refused: 0 };
  for (let round = 0; round < ROUNDS; round++) {
    quiet.push(await load(server.requests, "findOne", REQUESTS));
    const attacker = fork(ATTACKER, [server.requests.url + server.requests.logIn.path, String(FLOOD_CLIENTS)]);
    await once(attacker, "spawn");
    await new Promise((resolve) => setTimeout(resolve, 500));
    flooded.push(await load(server.requests, "findOne", REQUESTS));
    attacker.send("stop");
    const [counts] = await once(attacker, "message");
    all.answered += counts.answered;
    all.refused += counts.refused;
  }
  const [alone, under] = [quiet, flooded].map((rounds) => median(rounds.map(({ p99 }) => p99)));
  console.log(
    `findOne during a flood of log-ins from ${name} (${all.answered}, of which ${all.refused} rate limited): ` +
      `p99 ${under.toFixed(2)} ms, alone ${alone.toFixed(2)} ms, ${(under / alone).toFixed(2)}×`,
  );
  server.child.disconnect();
}
for (const { child } of servers.slice(1)) {
  child.disconnect();
}
