// Compares the embedded store with plain SQLite on the same bytes. Rounds alternate; the results
// are medians.
//
//   npm run bench [-- --documents 100000 --rounds 5]
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import Realm, { BSON } from "userkeep";
import { hostTriple } from "../scripts/run.mjs";
import { document, mainThreadTime } from "./support.mjs";

const { values } = parseArgs({
  options: { documents: { type: "string", default: "100000" }, rounds: { type: "string", default: "5" } },
});
const DOCUMENTS = Number(values.documents);
const ROUNDS = Number(values.rounds);
const ROOT = fileURLToPath(new URL("..", import.meta.url));
const directory = fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-bench-"));
const settings = {
  id: "bench",
  definition: path.join(ROOT, "examples/link-existing-document/userkeep"),
  baseFilePath: directory,
  logger: null,
};

async function measure(iterations, run) {
  const [cpu, wall] = [mainThreadTime(), process.hrtime.bigint()];
  for (let index = 0; index < iterations; index++) {
    await run(index);
  }
  return {
    cpu: (mainThreadTime() - cpu) / iterations,
    wall: Number(process.hrtime.bigint() - wall) / iterations,
  };
}

const backend = await Realm.openBackend(settings);
const seeded = backend.collection("custom-user-data-database", "custom-user-data");
const ids = [];
for (let start = 0; start < DOCUMENTS; start += 5000) {
  const batch = Array.from({ length: Math.min(5000, DOCUMENTS - start) }, (_, offset) =>
    document(start + offset, new BSON.ObjectId().toHexString()),
  );
  ids.push(...batch.map(({ _id }) => _id));
  await seeded.insertMany(batch);
}
const app = new Realm.App(settings);
const user = await app.logIn(Realm.Credentials.anonymous());
const collection = user.mongoClient("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data");
await collection.insertOne(document(0, user.id));
const size = BSON.calculateObjectSize(document(0, user.id));

const operations = {
  refreshCustomData: [1000, () => user.refreshCustomData()],
  "findOne by _id": [5000, (index) => collection.findOne({ _id: ids[(index * 7919) % ids.length] })],
  insertOne: [1000, (index) => collection.insertOne(document(index, "another-user"))],
  "find of 1000": [20, () => collection.find({}, { limit: 1000 })],
};
const limitProgram = [
  "run",
  "--quiet",
  "--release",
  "--target",
  hostTriple(),
  "-p",
  "userkeep-testing",
  "--example",
  "limit",
  "--",
];

const results = {};
for (let round = 0; round <= ROUNDS; round++) {
  const limit = spawnSync("cargo", [...limitProgram, DOCUMENTS, size, 2000].map(String), {
    cwd: ROOT,
    encoding: "utf8",
  });
  if (limit.status !== 0) {
    throw new Error(limit.stderr);
  }
  const limits = JSON.parse(limit.stdout);
  for (const [name, [iterations, run]] of Object.entries(operations)) {
    const measured = await measure(iterations, run);
    // The first round only warms up.
    if (round > 0) {
      results[name] ??= [];
      results[name].push({ ...measured, limit: limits[name] });
    }
  }
}

const median = (numbers) => numbers.sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
const micro = (nanoseconds) => `${(nanoseconds / 1000).toFixed(1)} µs`;
console.log(`${DOCUMENTS} documents of ${size} bytes, medians of ${ROUNDS} rounds, one call at a time`);
console.log("operation           main thread        wall    SQLite in Rust   main/SQLite   wall/SQLite");
for (const [name, rounds] of Object.entries(results)) {
  const [cpu, wall, limit] = ["cpu", "wall", "limit"].map((key) => median(rounds.map((round) => round[key])));
  const columns = [micro(cpu).padStart(12), micro(wall).padStart(12), micro(limit).padStart(17)];
  const ratios = [cpu / limit, wall / limit].map((ratio) => `${ratio.toFixed(2)}×`.padStart(14));
  console.log(`${name.padEnd(18)} ${columns.join("")}${ratios.join("")}`);
}
await Promise.all([app.close(), backend.close()]);
fs.rmSync(directory, { recursive: true });
