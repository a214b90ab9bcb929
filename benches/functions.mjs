// Measures calls of functions through an embedded app: calls per second, the time of one call, and
// the time of the main thread. The results are medians of rounds.
//
//   npm run bench:functions [-- --rounds 5]
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import Realm from "userkeep";
import { document, mainThreadTime } from "./support.mjs";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "5" } } });
const ROUNDS = Number(values.rounds);
const ROOT = fileURLToPath(new URL("..", import.meta.url));
const DOCUMENTS = 1000;

const head = `const items = context.services.get("mongodb-atlas").db("app").collection("items");`;
/** The functions by name: their sources, and the number of calls of a round. */
const FUNCTIONS = {
  empty: ["exports = () => {};", 5000],
  "one findOne": [`exports = async (n) => { ${head} return (await items.findOne({ _id: n })).name; };`, 2000],
  "ten findOne": [
    `exports = async (n) => { ${head} let last; for (let i = 0; i < 10; i++) last = await items.findOne({ _id: (n + i) % ${DOCUMENTS} }); return last.name; };`,
    500,
  ],
};
const nameOf = (title) => title.replace(/ /g, "");

function writeDefinition(directory) {
  fs.cpSync(path.join(ROOT, "examples/quickstart/userkeep"), directory, { recursive: true });
  fs.mkdirSync(path.join(directory, "functions"));
  for (const [title, [source]] of Object.entries(FUNCTIONS)) {
    fs.writeFileSync(path.join(directory, "functions", `${nameOf(title)}.js`), source);
  }
  const manifest = Object.keys(FUNCTIONS).map((title) => ({ name: nameOf(title), run_as_system: true }));
  fs.writeFileSync(path.join(directory, "functions/config.json"), JSON.stringify(manifest));
}

const directory = fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-bench-"));
const definition = path.join(directory, "definition");
writeDefinition(definition);
const settings = { id: "bench", definition, baseFilePath: directory, logger: null };
const backend = await Realm.openBackend(settings);
await backend
  .collection("app", "items")
  .insertMany(Array.from({ length: DOCUMENTS }, (_, n) => ({ ...document(n, "another-user"), _id: n })));
await backend.close();

/** Makes `count` calls, `inFlight` of them at a time. Returns times per call in µs. */
async function measure(call, count, inFlight) {
  let next = 0;
  const callInTurn = async () => {
    while (next < count) {
      await call(next++ % DOCUMENTS);
    }
  };
  const [cpu, wall] = [mainThreadTime(), performance.now()];
  await Promise.all(Array.from({ length: inFlight }, callInTurn));
  return { main: (mainThreadTime() - cpu) / count / 1000, wall: ((performance.now() - wall) / count) * 1000 };
}

const median = (numbers) => numbers.sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

console.log(`medians of ${ROUNDS} rounds, ${DOCUMENTS} documents`);
console.log("function      threads  in flight   calls/s   µs per call   main thread µs per call");
for (const threads of [1, 2]) {
  const app = new Realm.App({ ...settings, metadata: { mode: "inMemory" }, functions: { threads } });
  const user = await app.logIn(Realm.Credentials.anonymous());
  for (const [title, [, count]] of Object.entries(FUNCTIONS)) {
    const call = (n) => user.callFunction(nameOf(title), n);
    for (const inFlight of [1, 64]) {
      const rounds = [];
      for (let round = 0; round <= ROUNDS; round++) {
        const measured = await measure(call, count, inFlight);
        // The first round only warms up.
        if (round > 0) {
          rounds.push(measured);
        }
      }
      const [main, wall] = ["main", "wall"].map((key) => median(rounds.map((round) => round[key])));
      const columns = [String(threads).padStart(7), String(inFlight).padStart(10), (1e6 / wall).toFixed(0).padStart(9)];
      const times = [wall.toFixed(1).padStart(13), main.toFixed(1).padStart(25)];
      console.log(`${title.padEnd(12)} ${[...columns, ...times].join(" ")}`);
    }
  }
  await app.close();
}
fs.rmSync(directory, { recursive: true });
