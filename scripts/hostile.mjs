// Sends hostile operations of one user to a backend, embedded and over HTTP, and checks that nothing gives way:
//
//     node scripts/hostile.mjs [--operations 20000] [--seed 1] [--budget 100] [--store sqlite:PATH]
//
// A watchdog compares the CPU time of the main thread inside each native call with 5 ms, and how long a small request
// of another user takes, embedded and over HTTP, with 250 ms of wall time plus the machine's own pauses. Memory must stay
// bounded, every operation must end soon after its budget, and documents that the user may not see must not change.
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { batch, DATABASE, documents, random } from "./hostile/operations.mjs";

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
const BUDGET = Number(options.budget);

/** The most CPU time of the main thread inside one native call, in milliseconds. */
const MOST_CPU = 5;
/** CPU time that copying the caller's own arguments may take on top, in milliseconds for each MB. */
const COPYING = 2;
/**
 * How many of 10 000 calls may take longer: a collection of garbage or a page fault falls into some call's time now and
 * then, whatever the call does.
 */
const PAUSES = 3;
/** The most CPU time of any call at all, in milliseconds. */
const MOST_EVER = 30;
/** The most wall time of a small request of another user, in milliseconds. */
const MOST_WALL = 250;
/** How long after its budget an operation may end, in milliseconds of wall time, on a busy machine. */
const MOST_OVER = 2000;
/** How much memory the process may take beyond what it took at the beginning, in bytes. */
const MOST_MEMORY = 1.5 * 2 ** 30;
/** How many hostile operations are under way at once. */
const IN_FLIGHT = 4;

/** Calls of the native side that took longer than they may. */
const slow = [];
let calls = 0;
let longest = { cpu: 0, call: "none" };

/** Wraps each function of the native side to measure the CPU time of this thread inside it. */
function watchNative() {
  // They set up or read files before the first operation, or end all.
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
        const call = `${name} ${args[4] ?? ""} with ${bytes} bytes (${current})`;
        if (over > longest.cpu) {
          longest = { cpu: over, call };
        }
        if (over > MOST_CPU) {
          slow.push(`${over.toFixed(1)} ms in ${call}`);
        }
      }
    };
  }
}

let current = "none";
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
const remoteBystander = await remote.logIn(Realm.Credentials.anonymous(false));

for (const user of [attacker, remoteAttacker]) {
  for (const some of documents(user.id, 1000)) {
    await all.insertMany(some);
  }
}
await all.createIndexes([{ key: { owner: 1 }, name: "owner" }]);
await all.insertMany(
  Array.from({ length: 8000 }, (_, n) => ({ _id: `hidden-${n}`, owner: "nobody", n, secret: "s".repeat(100) })),
);
for (const user of [bystander, remoteBystander]) {
  await things(user).insertOne({ _id: user.id, owner: user.id, n: 0 });
}
const hidden = JSON.stringify(await all.find({ owner: "nobody" }, { sort: { _id: 1 } }));

const counts = new Map();
const failures = [];
const waits = { embedded: [], remote: [] };
let memory = process.memoryUsage().rss;
const memoryBefore = memory;
let running = true;
let refused = 0;

/** Another user's small requests, one after the other; how long each takes. */
async function observe(user, into) {
  while (running) {
    for (const request of [
      (c) => c.updateOne({ _id: user.id }, { $inc: { n: 1 } }),
      (c) => c.findOne({ _id: user.id }),
    ]) {
      const begun = performance.now();
      // The budget of the test is theirs too, on a machine that is busy with it.
      await request(things(user)).catch((error) => {
        if (error.serverCode !== 50 && error.code !== 50) {
          throw error;
        }
        refused += 1;
      });
      into.push(performance.now() - begun);
    }
    memory = Math.max(memory, process.memoryUsage().rss);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const draw = random(Number(options.seed));
let begunOperations = 0;
// What the operator has done until here is not limited.
slow.length = 0;
calls = 0;
longest = { cpu: 0, call: "none" };

async function attack(user, operations) {
  const collection = things(user);
  while (begunOperations < OPERATIONS) {
    begunOperations += 1;
    const { name, run } = batch(draw, user.id);
    const begun = performance.now();
    let outcome = "ok";
    try {
      // The calls that it makes at once are its own.
      current = name;
      const running = run(collection);
      current = "others";
      await running;
    } catch (error) {
      outcome = error.serverCode ?? error.code ?? error.name;
      if (!(error instanceof Error) || /unexpected way|internal server error/.test(error.message)) {
        failures.push(`${name}: ${error.message}`);
      }
    }
    const took = performance.now() - begun;
    if (took > BUDGET + MOST_OVER) {
      failures.push(`${name} ended after ${took.toFixed(0)} ms, with ${outcome}`);
    }
    const key = `${name} ${outcome}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
    operations.push(took);
  }
}

const times = [];
const observers = [observe(bystander, waits.embedded), observe(remoteBystander, waits.remote)];
const begun = performance.now();
await Promise.all(Array.from({ length: IN_FLIGHT }, (_, n) => attack(n % 2 === 0 ? attacker : remoteAttacker, times)));
running = false;
await Promise.all(observers);
const seconds = (performance.now() - begun) / 1000;

if (hidden !== JSON.stringify(await all.find({ owner: "nobody" }, { sort: { _id: 1 } }))) {
  failures.push("documents that the user may not see have changed");
}

const at = (values, part) => [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) * part)] ?? 0;
const shown = (values) => [0.5, 0.99, 1].map((part) => at(values, part).toFixed(1)).join(" / ");
console.log(`${times.length} operations, seed ${options.seed}, budget ${BUDGET} ms, in ${seconds.toFixed(0)} s`);
console.log(`an operation took (p50 / p99 / most)             ${shown(times)} ms`);
console.log(`another user, embedded (p50 / p99 / most)        ${shown(waits.embedded)} ms of ${waits.embedded.length}`);
console.log(`another user, over HTTP (p50 / p99 / most)       ${shown(waits.remote)} ms of ${waits.remote.length}`);
console.log(
  `native calls over ${MOST_CPU} ms of CPU: ${slow.length} of ${calls}; longest: ${longest.cpu.toFixed(2)} ms in ${longest.call}`,
);
console.log(`requests of other users that took longer than the budget: ${refused}`);
console.log(`memory grew by ${((memory - memoryBefore) / 2 ** 20).toFixed(0)} MB at most`);
for (const [key, count] of [...counts].sort()) {
  console.log(`  ${key}: ${count}`);
}
for (const call of slow) {
  console.log(`  over: ${call}`);
}
if (slow.length > 1 + (calls / 10_000) * PAUSES || longest.cpu > MOST_EVER) {
  failures.push(`${slow.length} native calls held the main thread for more than ${MOST_CPU} ms of CPU`);
}
for (const [place, values] of Object.entries(waits)) {
  // One wait may be the machine's own pause; a hundredth of them is not.
  if (at(values, 0.99) > MOST_WALL) {
    failures.push(`another user waited ${at(values, 0.99).toFixed(0)} ms (p99), ${place}`);
  }
}
if (refused > 2 + (waits.embedded.length + waits.remote.length) / 100) {
  failures.push(`${refused} requests of other users took longer than the budget`);
}
if (memory - memoryBefore > MOST_MEMORY) {
  failures.push(`memory grew by ${((memory - memoryBefore) / 2 ** 20).toFixed(0)} MB`);
}

await app.close();
await remote.close();
await server.close();
await backend.close();
fs.rmSync(directory, { recursive: true, force: true });
for (const failure of failures.slice(0, 20)) {
  console.log(`FAILED ${failure}`);
}
console.log(`${failures.length === 0 ? 1 : 0} passed, ${failures.length} failed`);
process.exitCode = failures.length === 0 ? 0 : 1;
