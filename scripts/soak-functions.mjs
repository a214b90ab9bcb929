// Calls functions of which some loop for ever or exhaust the memory of their thread:
// node scripts/soak-functions.mjs [--calls 10000] [--in-flight 16] [--threads 2]
//
// Every hundredth call loops, and every hundredth allocates without end, in turns on the heap and
// in Buffers. A call may fail only while one of those ends its thread, with the error of such a
// call. The memory of the process must not grow. The last line is `N passed, N failed`.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import Realm from "userkeep";

const { values: options } = parseArgs({
  options: {
    calls: { type: "string", default: "10000" },
    "in-flight": { type: "string", default: "16" },
    threads: { type: "string", default: "2" },
  },
});
const CALLS = Number(options.calls);
const IN_FLIGHT = Number(options["in-flight"]);
const THREADS = Number(options.threads);
const TIME_LIMIT = 1000;
/** Memory limit of a thread in MB. */
const MEMORY_LIMIT = 64;
/**
 * Maximum growth of the process in MB between a quarter of the calls and the end. A thread that is
 * not released has up to its memory limit.
 */
const MOST_GROWTH = 128;
/**
 * Maximum time in milliseconds for which a thread exists after the failure of the call that ends
 * it. A late call fails before its thread, if the thread has yielded within the last second.
 */
const LONGEST_END = 2 * TIME_LIMIT;
/** Maximum number of other calls that fail with a thread, on average. */
const MOST_LOST = 10;

const ROOT = fileURLToPath(new URL("..", import.meta.url));

const SOURCES = {
  loop: "exports = () => { for (;;) {} };",
  heap: "exports = () => { const all = []; for (;;) all.push({ text: 'x'.repeat(10) + all.length }); };",
  buffers: "exports = () => { const all = []; for (;;) all.push(Buffer.alloc(1e6, 1)); };",
  sum: "exports = (a, b) => a + b;",
  wait: "exports = (value) => new Promise((resolve) => setTimeout(() => resolve(value), 5));",
  read: `exports = async (_id) => {
    const { n } = await context.services.get("mongodb-atlas").db("app").collection("items").findOne({ _id });
    return n;
  };`,
};

const TIME = "ExecutionTimeLimitExceeded: execution time limit exceeded";
const MEMORY = "FunctionExecutionError: memory limit exceeded";

/** Returns a call: its name, its arguments, and its result or its errors. */
function plan(index) {
  if (index % 100 === 30) {
    return { name: "loop", args: [], errors: [TIME] };
  }
  if (index % 100 === 80) {
    // On a busy machine, the time limit can come first.
    return { name: index % 200 === 80 ? "heap" : "buffers", args: [], errors: [MEMORY, TIME] };
  }
  const kinds = [
    { name: "sum", args: [index, 1], errors: [], result: index + 1 },
    { name: "wait", args: [index], errors: [], result: index },
    { name: "read", args: [index % 10], errors: [], result: (index % 10) * 3 },
  ];
  return kinds[index % kinds.length];
}

function writeDefinition(directory) {
  fs.cpSync(path.join(ROOT, "examples/quickstart/userkeep"), directory, { recursive: true });
  fs.mkdirSync(path.join(directory, "functions"));
  for (const [name, source] of Object.entries(SOURCES)) {
    fs.writeFileSync(path.join(directory, "functions", `${name}.js`), source);
  }
  const manifest = Object.keys(SOURCES).map((name) => ({ name, run_as_system: true }));
  fs.writeFileSync(path.join(directory, "functions/config.json"), JSON.stringify(manifest));
}

const directory = fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-soak-"));
const definition = path.join(directory, "definition");
writeDefinition(definition);
const settings = {
  id: "soak",
  definition,
  store: `sqlite:${path.join(directory, "store.sqlite")}`,
  logger: null,
  metadata: { mode: "inMemory" },
};
const backend = await Realm.openBackend(settings);
await backend.collection("app", "items").insertMany(Array.from({ length: 10 }, (_, n) => ({ _id: n, n: n * 3 })));
const app = new Realm.App({
  ...settings,
  functions: { threads: THREADS, timeLimit: TIME_LIMIT, memoryLimit: MEMORY_LIMIT },
});
const user = await app.logIn(Realm.Credentials.anonymous());

/** Returns the resident memory of the process in MB. */
const memory = () => Math.round(process.memoryUsage.rss() / 2 ** 20);

const outcomes = [];
let next = 0;
let before;

async function callInTurn() {
  while (next < CALLS) {
    const index = next++;
    if (index === Math.floor(CALLS / 4)) {
      before = memory();
    }
    const planned = plan(index);
    const begun = performance.now();
    const { result, error } = await user.callFunction(planned.name, ...planned.args).then(
      (value) => ({ result: value }),
      ({ errorCode, message }) => ({ error: `${errorCode}: ${message}` }),
    );
    outcomes.push({ index, planned, result, error, begun, ended: performance.now() });
  }
}

const start = performance.now();
await Promise.all(Array.from({ length: IN_FLIGHT }, callInTurn));
const seconds = (performance.now() - start) / 1000;

const ends = outcomes.filter(({ planned, error }) => planned.errors.includes(error));
const ofMemory = ends.filter(({ error }) => error === MEMORY);

/** Returns true if a call ended as planned, or while a thread was ended. */
function isExpected({ planned, result, error, ended }) {
  if (error === undefined) {
    return planned.errors.length === 0 && result === planned.result;
  }
  return (
    planned.errors.includes(error) ||
    ([TIME, MEMORY].includes(error) && ends.some((end) => end.begun <= ended && ended <= end.ended + LONGEST_END))
  );
}

const wrong = outcomes.filter((outcome) => !isExpected(outcome));
for (const { index, planned, result, error } of wrong.slice(0, 10)) {
  console.log(`call ${index} of '${planned.name}': ${error ?? JSON.stringify(result)}`);
}
const lost = outcomes.filter(({ planned, error }) => error !== undefined && !planned.errors.includes(error));
// The threads that were ended release their memory.
await sleep(1000);
const after = memory();
// A thread that loops would use a processor.
const used = process.cpuUsage();
await sleep(1000);
const { user: busy } = process.cpuUsage(used);
await app.close();
await backend.close();
fs.rmSync(directory, { recursive: true });

const failures = [
  [wrong.length > 0, `${wrong.length} calls failed that should not, or did not fail as planned`],
  [ofMemory.length < CALLS / 200, `only ${ofMemory.length} calls exceeded the memory limit`],
  [lost.length > MOST_LOST * ends.length, `${lost.length} calls failed with the threads of ${ends.length}`],
  [outcomes.length !== CALLS, `${outcomes.length} of ${CALLS} calls ended`],
  [after - before > MOST_GROWTH, `the process grew by ${after - before} MB`],
  [busy > 500_000, `the process uses ${Math.round(busy / 1000)} ms of a processor per second after all calls`],
].filter(([failed]) => failed);
console.log(
  `${CALLS} calls in ${seconds.toFixed(1)} s: ${ends.length} ended their threads, ${lost.length} others ran on those; ` +
    `memory ${before} MB after a quarter of the calls, ${after} MB at the end`,
);
for (const [, text] of failures) {
  console.log(text);
}
const checks = 6;
console.log(`${checks - failures.length} passed, ${failures.length} failed`);
process.exitCode = failures.length > 0 ? 1 : 0;
