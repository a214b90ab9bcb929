// Sends hostile operations of one user to a backend, embedded and over HTTP, and checks that
// latency, memory and other users' documents stay within their limits:
//
//     node scripts/hostile.mjs [--operations 20000] [--seed 1] [--budget 100] [--store STORE]
//
// One operation in fifteen is heavy, near the maximum size; the sizes of the others are
// log-distributed from 1 to 1000. The operations depend only on the seed. The output has a line
// for each check, and ends with `N passed, N failed`. `--budget` is the time limit of an operation
// in milliseconds.
import { once } from "node:events";
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { DATABASE, documents, hostileOperation, KINDS } from "./hostile/operations.mjs";

const require = createRequire(import.meta.url);
const native = require("../lib/native.js");

const { values: options } = parseArgs({
  options: {
    operations: { type: "string", default: "20000" },
    seed: { type: "string", default: "1" },
    budget: { type: "string", default: "100" },
    store: { type: "string" },
  },
});
const OPERATIONS = Number(options.operations);
const SEED = Number(options.seed);
const BUDGET = Number(options.budget);

/** Maximum CPU time of the main thread inside one native call, in milliseconds. */
const MOST_CPU = 5;
/** Additional CPU time for copying the caller's own arguments, in milliseconds per MB. */
const COPYING = 2;
/**
 * Number of calls in 10 000 that may take longer: garbage collections and page faults add to the
 * time of any call.
 */
const PAUSES = 3;
/** Maximum CPU time of every call, without exceptions, in milliseconds. */
const MOST_EVER = 30;
/** Maximum wall time of small requests of another user at the 99th percentile, in milliseconds. */
const MOST_WALL = 250;
/**
 * The same for the probe's own event loop, over HTTP. Beyond it, the server's share is unknown.
 */
const MOST_OWN = 100;
/**
 * Maximum wall time of any user's operation after its budget, on a busy machine, in milliseconds.
 */
const MOST_OVER = 2000;
/** Additional wall time for reading the result, in milliseconds per MB of BSON. */
const READING = 100;
/** Maximum growth of the process's memory, in bytes. */
const MOST_MEMORY = 1.5 * 2 ** 30;
/** Number of concurrent hostile operations. */
const IN_FLIGHT = 4;
/** Number of operations from which every kind must have occurred, heavy and light. */
const ALL_KINDS = 10_000;

/** Native calls that exceeded `MOST_CPU`. */
const slow = [];
let calls = 0;
let longest = { cpu: 0, call: "none" };
let current = "none";

/** Wraps each native function to measure the CPU time of this thread inside it. */
function watchNative() {
  // These run before the first operation or after the last one.
  const others = new Set(["threadCpuTime", "open", "createBridge", "serve", "close"]);
  for (const name of Object.keys(native)) {
    const call = native[name];
    if (typeof call !== "function" || others.has(name)) {
      continue;
    }
    native[name] = (...args) => {
      const before = native.threadCpuTime();
      try {
        return call(...args);
      } finally {
        const cpu = (native.threadCpuTime() - before) / 1000;
        calls += 1;
        const bytes = args.find((arg) => arg instanceof Uint8Array)?.length ?? 0;
        const over = cpu - (bytes / 2 ** 20) * COPYING;
        if (over > longest.cpu || over > MOST_CPU) {
          const call = `${name} ${args[4] ?? ""} with ${bytes} bytes (${current})`;
          longest = over > longest.cpu ? { cpu: over, call } : longest;
          if (over > MOST_CPU) {
            slow.push(`${over.toFixed(1)} ms in ${call}`);
          }
        }
      }
    };
  }
}

watchNative();
const Realm = require("..");

const directory = fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-hostile-"));
const definition = path.join(directory, "definition");
fs.cpSync(new URL("../examples/quickstart/userkeep", import.meta.url), definition, { recursive: true });
const everything = { read: true, write: true, insert: true, delete: true, search: true };
const owned = { owner: "%%user.id" };
const rules = path.join(definition, "data_sources/mongodb-atlas", DATABASE, "things");
fs.mkdirSync(rules, { recursive: true });
fs.writeFileSync(
  path.join(rules, "rules.json"),
  JSON.stringify({
    database: DATABASE,
    collection: "things",
    roles: [{ name: "own", apply_when: owned, document_filters: { read: owned, write: owned }, ...everything }],
  }),
);

const settings = {
  definition,
  store: options.store ?? `sqlite:${path.join(directory, "store.sqlite")}`,
  baseFilePath: directory,
  maxTimeMS: BUDGET,
  logger: null,
};

const backend = await Realm.openBackend({ ...settings, id: "hostile" });
const all = backend.collection(DATABASE, "things");
const app = new Realm.App({ ...settings, id: "hostile" });
const server = await Realm.serve({ ...settings, app: "hostile", port: 0 });
const remote = new Realm.App({
  id: "hostile",
  baseUrl: server.url,
  metadata: { mode: Realm.MetadataMode.InMemory },
  logger: null,
});

const things = (user) => user.mongoClient("mongodb-atlas").db(DATABASE).collection("things");
const attacker = await app.logIn(Realm.Credentials.anonymous());
const remoteAttacker = await remote.logIn(Realm.Credentials.anonymous());
const bystander = await app.logIn(Realm.Credentials.anonymous(false));

for (const user of [attacker, remoteAttacker]) {
  for (const some of documents(user.id)) {
    await all.insertMany(some);
  }
}
await all.createIndexes([{ key: { owner: 1, n: 1 }, name: "owner" }]);
await all.insertMany(
  Array.from({ length: 8000 }, (_, n) => ({ _id: `hidden-${n}`, owner: "another-user", n, secret: "s".repeat(100) })),
);
await things(bystander).insertOne({ _id: bystander.id, owner: bystander.id, n: 0 });
const hidden = JSON.stringify(await all.find({ owner: "another-user" }, { sort: { _id: 1 } }));

const outcomes = new Map();
const failures = [];
const times = [];
const waits = [];
let memory = process.memoryUsage.rss();
const memoryBefore = memory;
let running = true;
let refused = 0;

/**
 * Sends small requests of another user in this process, one after the other, and measures their
 * wall time.
 */
async function observe() {
  while (running) {
    for (const request of [
      (c) => c.updateOne({ _id: bystander.id }, { $inc: { n: 1 } }),
      (c) => c.findOne({ _id: bystander.id }),
    ]) {
      const begun = performance.now();
      // The budget applies to this user too.
      await request(things(bystander)).catch((error) => {
        if (error.serverCode !== 50) {
          throw error;
        }
        refused += 1;
      });
      waits.push(performance.now() - begun);
    }
    memory = Math.max(memory, process.memoryUsage.rss());
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const workerData = { url: server.url, appId: "hostile", database: DATABASE, collection: "things" };
const probe = new Worker(new URL("hostile/probe.mjs", import.meta.url), { workerData });
await once(probe, "message");

const megabytes = (answer) => Realm.BSON.calculateObjectSize({ answer }) / 2 ** 20;

let begunOperations = 0;
let heavy = 0;
let slowest = { took: 0, operation: "none" };
/** CPU time for generating the operations, in milliseconds. */
let making = 0;

/** Runs hostile operations of a user, one after the other, until all have started. */
async function attack(user) {
  const collection = things(user);
  while (begunOperations < OPERATIONS) {
    const number = begunOperations++;
    const before = native.threadCpuTime();
    const { name, isHeavy, run } = hostileOperation(SEED, number, user.id);
    heavy += isHeavy ? 1 : 0;
    making += (native.threadCpuTime() - before) / 1000;
    const begun = performance.now();
    let outcome = "ok";
    let answer;
    try {
      // Only the synchronous native calls belong to this operation for certain.
      current = name;
      const pending = run(collection);
      current = "others";
      answer = await pending;
    } catch (error) {
      outcome = error.serverCode ?? error.code ?? error.name;
      if (!(error instanceof Error) || /unexpected way|internal server error/.test(error.message)) {
        failures.push(`operation ${number}, ${name}: ${error.message}`);
      }
    }
    const took = performance.now() - begun;
    if (took > slowest.took) {
      slowest = { took, operation: `operation ${number}, ${name}` };
    }
    if (took > BUDGET + MOST_OVER && took > BUDGET + MOST_OVER + megabytes(answer) * READING) {
      failures.push(`operation ${number}, ${name}, ended after ${took.toFixed(0)} ms, with ${outcome}`);
    }
    const key = `${name}, ${isHeavy ? "heavy" : "light"}`;
    const counts = outcomes.get(key) ?? { took: 0 };
    counts.took += took;
    counts[outcome] = (counts[outcome] ?? 0) + 1;
    outcomes.set(key, counts);
    times.push(took);
  }
}

// Discards the measurements of the setup, to which no limit applies.
slow.length = 0;
calls = 0;
longest = { cpu: 0, call: "none" };
const loop = monitorEventLoopDelay({ resolution: 1 });
loop.enable();
const cpuBefore = process.cpuUsage();
const observer = observe();
const begun = performance.now();
await Promise.all(Array.from({ length: IN_FLIGHT }, (_, n) => attack(n % 2 === 0 ? attacker : remoteAttacker)));
const seconds = (performance.now() - begun) / 1000;
const cpu = process.cpuUsage(cpuBefore);
loop.disable();
running = false;
probe.postMessage("end");
const [overHttp] = await once(probe, "message");
await probe.terminate();
await observer;
const isUnchanged = hidden === JSON.stringify(await all.find({ owner: "another-user" }, { sort: { _id: 1 } }));

await app.close();
await remote.close();
await server.close();
await backend.close();
fs.rmSync(directory, { recursive: true, force: true });

const at = (values, part) => values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) * part)] ?? 0;
const shown = (values) => `${[0.5, 0.99, 1].map((part) => at(values, part).toFixed(1)).join(" / ")} ms`;
const counted = { passed: 0, failed: 0 };

/** Prints and counts a check. */
function check(name, holds, measured) {
  counted[holds ? "passed" : "failed"] += 1;
  console.log(`${holds ? "ok    " : "FAILED"}  ${name}: ${measured}`);
}

for (const [key, { took, ...counts }] of [...outcomes].sort()) {
  const total = Object.entries(counts).map(([outcome, count]) => `${outcome} ${count}`);
  console.log(`  ${key}: ${total.join(", ")} (${(took / 1000).toFixed(1)} s)`);
}
console.log(
  `${times.length} operations, ${heavy} of them heavy, seed ${SEED}, budget ${BUDGET} ms, in ${seconds.toFixed(0)} s ` +
    `with ${((cpu.user + cpu.system) / 1e6).toFixed(0)} s of CPU, ${(making / 1000).toFixed(1)} s of it to generate them`,
);
console.log(`times are p50 / p99 / maximum; an operation took ${shown(times)} (${slowest.operation})`);
console.log(
  `event loop delay of the hostile client: ${[50, 99, 100].map((part) => (loop.percentile(part) / 1e6).toFixed(1)).join(" / ")} ms`,
);

check(
  `operations end within ${MOST_OVER} ms after their budget, without internal errors`,
  failures.length === 0 && times.length === OPERATIONS,
  `${times.length - failures.length} of ${OPERATIONS}`,
);
for (const failure of failures.slice(0, 20)) {
  console.log(`  ${failure}`);
}
const kinds = KINDS.flatMap((name) => [`${name}, heavy`, `${name}, light`]);
const missing = kinds.filter((kind) => !outcomes.has(kind));
check(
  "kinds of operations",
  OPERATIONS < ALL_KINDS || missing.length === 0,
  `${kinds.length - missing.length} of ${kinds.length}, heavy and light`,
);
check(
  `native calls block the event loop for ${MOST_CPU} ms of CPU at most`,
  slow.length <= 1 + (calls / 10_000) * PAUSES && longest.cpu <= MOST_EVER,
  `${slow.length} of ${calls} took longer; longest: ${longest.cpu.toFixed(2)} ms in ${longest.call}`,
);
for (const call of slow) {
  console.log(`  ${call}`);
}
/**
 * Checks the 99th percentile and the maximum: single longer waits may be pauses of the machine.
 */
const isShort = (values) => at(values, 0.99) <= MOST_WALL && at(values, 1) <= BUDGET + MOST_OVER;
check(
  `another user waits ${MOST_WALL} ms at most (p99), embedded`,
  isShort(waits),
  `${shown(waits)} for ${waits.length} requests, including waits for the shared event loop`,
);
check(
  `another user waits ${MOST_WALL} ms at most (p99) for the server, over HTTP`,
  overHttp.failures.length === 0 && isShort(overHttp.server) && at(overHttp.own, 0.99) <= MOST_OWN,
  `${shown(overHttp.server)} for ${overHttp.server.length} requests; until the response was handled ` +
    `${shown(overHttp.wall)}, including ${shown(overHttp.own)} for the probe's own event loop`,
);
for (const failure of overHttp.failures.slice(0, 20)) {
  console.log(`  ${failure}`);
}
const requests = waits.length + overHttp.wall.length;
check(
  "requests of other users end within the budget",
  refused + overHttp.refused <= 2 + requests / 100,
  `${refused + overHttp.refused} of ${requests} did not`,
);
check("memory", memory - memoryBefore <= MOST_MEMORY, `grew by ${((memory - memoryBefore) / 2 ** 20).toFixed(0)} MB`);
check("documents that the user may not see", isUnchanged, isUnchanged ? "unchanged" : "changed");
console.log(`${counted.passed} passed, ${counted.failed} failed`);
process.exitCode = counted.failed === 0 ? 0 : 1;
