// Compares a user's collection under rules on MongoDB with the official Node driver on the same
// server. Rounds alternate; the results are medians.
//
//   npm run bench:mongodb [-- --rounds 5 --canned]
//
// Uses the server of MONGODB_URI, or else the test server. With --canned, uses a server that
// returns constant responses, which measures only the round trip.
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { MongoClient } from "mongodb";
import Realm, { BSON } from "userkeep";
import { hostTriple, run as runCommand } from "../scripts/run.mjs";
import { start, stop } from "../scripts/test-server.mjs";
import { document, mainThreadTime } from "./support.mjs";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "1" },
    canned: { type: "boolean", default: false },
  },
});
const ROUNDS = Number(values.rounds);
const SECONDS = Number(values.seconds);
const ROOT = fileURLToPath(new URL("..", import.meta.url));
const DATABASE = "custom-user-data-database";
const MANY = 1000;
const AT_ONCE = [1, 32];
const directory = fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-bench-"));

/** Starts or selects the server. Returns its address, its name, and `end`, which stops it. */
async function server() {
  if (values.canned) {
    const cargo = ["build", "--release", "--quiet", "--package", "userkeep-testing", "--example", "canned-server"];
    runCommand("cargo", [...cargo, "--target", hostTriple()]);
    const program = path.join(ROOT, "target", hostTriple(), "release", "examples", "canned-server");
    const child = spawn(program, { stdio: ["ignore", "pipe", "inherit"] });
    const [uri] = await new Promise((resolve) => createInterface(child.stdout).once("line", (line) => resolve([line])));
    return { uri, name: "a canned server", end: () => child.kill() };
  }
  if (process.env.MONGODB_URI) {
    return { uri: process.env.MONGODB_URI, name: "the server of MONGODB_URI", end: () => {} };
  }
  return { uri: await start(directory), name: "secantusd-rs", end: () => stop(directory) };
}

const { uri, name, end } = await server();
const definition = path.join(directory, "definition");
fs.cpSync(path.join(ROOT, "examples/quickstart/userkeep"), definition, { recursive: true });
const app = new Realm.App({ id: "bench", definition, store: uri, logger: null, metadata: { mode: "inMemory" } });
const user = await app.logIn(Realm.Credentials.anonymous());
const ours = user.mongoClient("mongodb-atlas").db(DATABASE).collection("custom-user-data");
const client = new MongoClient(uri, { maxPoolSize: 100 });
// The rules limit the user to his or her own documents, which are all documents of this
// collection.
const theirs = client.db(DATABASE).collection("custom-user-data");

const ids = [];
for (let index = 0; index < MANY; index++) {
  const { insertedId } = await ours.insertOne(document(index, user.id));
  ids.push(insertedId);
}
const idAt = (index) => ids[(index * 7919) % ids.length];
const sides = {
  userkeep: {
    insertOne: (index) => ours.insertOne(document(index, user.id)),
    findOne: (index) => ours.findOne({ _id: idAt(index) }),
    [`find of ${MANY}`]: () => ours.find({ userId: user.id }, { limit: MANY }),
    updateOne: (index) => ours.updateOne({ _id: idAt(index) }, { $set: { visits: index } }),
  },
  driver: {
    insertOne: (index) => theirs.insertOne(document(index, user.id)),
    findOne: (index) => theirs.findOne({ _id: idAt(index) }),
    [`find of ${MANY}`]: () => theirs.find({ userId: user.id }, { limit: MANY }).toArray(),
    updateOne: (index) => theirs.updateOne({ _id: idAt(index) }, { $set: { visits: index } }),
  },
};

/**
 * Runs an operation for `SECONDS` seconds, `atOnce` calls at a time. Returns the main thread's CPU
 * time per call in microseconds, and the calls per second.
 */
async function measure(operation, atOnce) {
  let done = 0;
  let next = 0;
  const [cpu, begun] = [mainThreadTime(), process.hrtime.bigint()];
  const until = performance.now() + SECONDS * 1000;
  const work = async () => {
    while (performance.now() < until) {
      await operation(next++);
      done += 1;
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  const wall = Number(process.hrtime.bigint() - begun);
  return { cpu: (mainThreadTime() - cpu) / done / 1000, rate: done / (wall / 1e9) };
}

const median = (numbers) => numbers.sort((one, other) => one - other)[Math.floor(numbers.length / 2)];

console.log(
  `${MANY} documents of ${BSON.calculateObjectSize(document(0, user.id))} bytes on ${name}, ${ROUNDS} rounds\n`,
);
console.log("                             main thread, µs each                 operations per second");
console.log("operation     in flight    userkeep     driver   ratio        userkeep     driver   ratio");
for (const operation of Object.keys(sides.userkeep)) {
  for (const atOnce of AT_ONCE) {
    const rounds = { userkeep: [], driver: [] };
    for (let round = 0; round < ROUNDS; round++) {
      for (const side of Object.keys(sides)) {
        rounds[side].push(await measure(sides[side][operation], atOnce));
      }
    }
    const of = (side, what) => median(rounds[side].map((round) => round[what]));
    const row = (what, digits) => {
      const [one, other] = [of("userkeep", what), of("driver", what)];
      return `${one.toFixed(digits).padStart(10)} ${other.toFixed(digits).padStart(10)}   ${(one / other).toFixed(2).padStart(5)}`;
    };
    console.log(`${operation.padEnd(14)}${`${atOnce}`.padStart(9)}  ${row("cpu", 1)}      ${row("rate", 0)}`);
  }
}
await app.deleteUser(user);
await app.close();
await client.db(DATABASE).collection("custom-user-data").deleteMany({});
await client.close();
await end();
fs.rmSync(directory, { recursive: true, force: true });
