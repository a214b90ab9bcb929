// Runs workers that load the package:
// node scripts/worker-rounds.cjs COUNT turns|at-once|terminated [main]
//
// `turns` runs one worker after the other, `at-once` five at a time; `terminated` terminates each
// one during its calls. With `main`, the main thread loads the package first. Prints the number of
// workers that ended as expected.
"use strict";

const path = require("node:path");
const { Worker } = require("node:worker_threads");

const PACKAGE = path.resolve(__dirname, "..");
/** Number of concurrent workers in the mode `at-once`. */
const AT_ONCE = 5;

const [count, mode, main] = [Number(process.argv[2]), process.argv[3], process.argv[4] === "main"];

const code = `
  const Realm = require(${JSON.stringify(PACKAGE)});
  const { parentPort, threadId } = require("node:worker_threads");
  (async () => {
    const app = new Realm.App({ id: "worker-" + threadId, store: "memory:", logger: null });
    const user = await app.logIn(Realm.Credentials.anonymous());
    const collection = user.mongoClient("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data");
    await collection.insertOne({ userId: user.id });
    parentPort.postMessage("up");
    while (${mode === "terminated"}) {
      await Promise.all(Array.from({ length: 50 }, () => collection.findOne({ userId: user.id })));
    }
    await app.close();
  })();`;

/** Runs a worker. Resolves to true if it logged in and then ended with the status for the mode. */
function run(round) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(code, { eval: true });
    let isUp = false;
    worker.on("message", () => {
      isUp = true;
      if (mode === "terminated") {
        // The moment differs in each round, up to 30 ms after the first call.
        setTimeout(() => worker.terminate(), (round * 7) % 30);
      }
    });
    worker.on("error", reject);
    worker.on("exit", (status) => resolve(isUp && status === (mode === "terminated" ? 1 : 0)));
  });
}

async function runAll() {
  if (!["turns", "at-once", "terminated"].includes(mode) || !(count > 0)) {
    throw new Error("usage: node scripts/worker-rounds.cjs COUNT turns|at-once|terminated [main]");
  }
  if (main) {
    require(PACKAGE);
  }
  const width = mode === "at-once" ? AT_ONCE : 1;
  let ended = 0;
  for (let round = 0; round < count; round += width) {
    const workers = Array.from({ length: Math.min(width, count - round) }, (_, index) => run(round + index));
    ended += (await Promise.all(workers)).filter(Boolean).length;
  }
  console.log(ended);
}

runAll();
