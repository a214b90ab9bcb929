"use strict";

// Processes that end, share a store and crash. Each test runs separate programs.

const { execFile, spawn } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { promisify } = require("node:util");
const {
  COLLECTION,
  DATABASE,
  OWN_STORE,
  QUICKSTART,
  ROOT,
  Realm,
  customDataOf,
  openBackend,
  openKept,
  temporaryDirectory,
} = require("./helpers.js");

const run = promisify(execFile);

const options = (directory) =>
  JSON.stringify({ id: "test-app", definition: QUICKSTART, store: OWN_STORE, baseFilePath: directory, logger: null });

/**
 * Runs a program with `Realm` and `options` in scope until it ends by itself; returns its output.
 */
async function program(directory, body, { module = false, timeout = 20_000 } = {}) {
  const head = module ? 'import Realm, { BSON } from "userkeep";' : 'const Realm = require("userkeep");';
  const code = `${head} const options = ${options(directory)}; ${body}`;
  const args = module ? ["--input-type=module", "-e", code] : ["-e", code];
  const { stdout } = await run(process.execPath, args, { cwd: ROOT, timeout });
  return stdout.trim();
}

const WRITE = `
  const app = new Realm.App(options);
  const user = await app.logIn(Realm.Credentials.anonymous());
  const collection = user.mongoClient("mongodb-atlas").db("${DATABASE}").collection("${COLLECTION}");
  await collection.updateOne({ userId: user.id }, { $set: { n: 1 } }, { upsert: true });
  console.log((await user.refreshCustomData()).n);
`;

test("a script ends by itself, as CommonJS and as an ES module, even if the app is not closed", async () => {
  const directory = temporaryDirectory();
  expect(await program(directory, `(async () => { ${WRITE} })();`)).toBe("1");
  expect(await program(directory, WRITE, { module: true })).toBe("1");
  expect(await program(directory, `${WRITE} await app.close();`, { module: true })).toBe("1");
  expect(await program(directory, 'new Realm.App(options); console.log("open");')).toBe("open");
  expect(await program(directory, "console.log(typeof BSON.ObjectId, typeof Realm.App)", { module: true })).toBe(
    "function function",
  );
});

test("custom data that was refreshed just before the process ended is restored", async () => {
  for (const end of ["", "process.exit();", "await app.close();"]) {
    const directory = temporaryDirectory();
    expect(await program(directory, `${WRITE} ${end}`, { module: true })).toBe("1");
    const app = await openKept(directory);
    expect(app.currentUser.customData).toMatchObject({ userId: app.currentUser.id, n: 1 });
    await app.close();
  }
});

const onLinux = process.platform === "linux" ? test : test.skip;

onLinux("the end of a process waits for the lock of the session file for two seconds at most", async () => {
  const directory = temporaryDirectory();
  // Another process holds the lock of the file.
  const lock = path.join(directory, ".userkeep/test-app.session.lock");
  const hold = `
    const { spawn } = require("node:child_process");
    const holder = spawn("flock", [${JSON.stringify(lock)}, "sh", "-c", "echo held; sleep 60"], { detached: true });
    await new Promise((resolve) => holder.stdout.once("data", resolve));
    console.log(holder.pid);
    const begun = Date.now();
    process.on("exit", () => console.log(Date.now() - begun));
  `;
  const code = `(async () => { ${WRITE} ${hold} await user.refreshCustomData(); process.exit(); })();`;
  const [, pid, took] = (await program(directory, code)).split("\n");
  process.kill(-Number(pid));
  expect(Number(took)).toBeLessThan(4_000);
});

test("a hard link to a store that a process has open is not opened by another one", async () => {
  const directory = temporaryDirectory();
  const file = path.join(directory, "store.sqlite");
  const link = path.join(directory, "sub/hard.sqlite");
  const backend = await openBackend({ definition: QUICKSTART, store: `sqlite:${file}` });
  const collection = backend.collection(DATABASE, COLLECTION);
  await collection.insertOne({ n: 1 });
  fs.mkdirSync(path.dirname(link));
  fs.linkSync(file, link);
  const open = (store) =>
    program(directory, `Realm.openBackend({ ...options, store: ${JSON.stringify(`sqlite:${store}`)} });`);
  await expect(open(link)).rejects.toThrow("the file has 2 names (hard links)");
  await collection.insertOne({ n: 2 });
  expect(await collection.count()).toBe(2);
  fs.rmSync(link);
  await open(file);
});

test("worker threads share the backend, and end by themselves", async () => {
  const directory = temporaryDirectory();
  const answer = await program(
    directory,
    `const { Worker, isMainThread } = require("node:worker_threads");
     const work = ${JSON.stringify(`const Realm = require("userkeep"); const options = ${options(directory)}; (async () => { ${WRITE} })();`)};
     const app = new Realm.App({ ...options, metadata: { mode: "inMemory" } });
     const workers = [1, 2, 3].map(() => new Promise((resolve, reject) => new Worker(work, { eval: true }).on("exit", resolve).on("error", reject)));
     Promise.all(workers).then(async (codes) => {
       const backend = await Realm.openBackend(options);
       console.log(codes.join(), await backend.collection("${DATABASE}", "${COLLECTION}").count());
     });`,
  );
  expect(answer.split("\n").at(-1)).toMatch(/^0,0,0 [1-3]$/);
});

test("terminating a worker during its writes does not affect the store", async () => {
  const directory = temporaryDirectory();
  const answer = await program(
    directory,
    `const { Worker } = require("node:worker_threads");
     const work = ${JSON.stringify(`const Realm = require("userkeep"); const app = new Realm.App(${options(directory)});
       (async () => { const user = await app.logIn(Realm.Credentials.anonymous(false));
       const collection = user.mongoClient("mongodb-atlas").db("${DATABASE}").collection("${COLLECTION}");
       require("node:worker_threads").parentPort.postMessage("up");
       for (;;) await Promise.all(Array.from({ length: 20 }, () => collection.insertOne({ userId: user.id }))); })();`)};
     (async () => {
       for (let round = 0; round < 5; round++) {
         const worker = new Worker(work, { eval: true });
         await new Promise((resolve) => worker.once("message", resolve));
         await new Promise((resolve) => setTimeout(resolve, 30));
         await worker.terminate();
       }
       const backend = await Realm.openBackend(options);
       console.log((await backend.collection("${DATABASE}", "${COLLECTION}").count()) > 0);
     })();`,
  );
  expect(answer).toBe("true");
});

test("several processes write to one store at the same time", async () => {
  const directory = temporaryDirectory();
  const body = `
    const app = new Realm.App({ ...options, metadata: { mode: "inMemory" } });
    const user = await app.logIn(Realm.Credentials.anonymous());
    const collection = user.mongoClient("mongodb-atlas").db("${DATABASE}").collection("${COLLECTION}");
    await Promise.all(Array.from({ length: 200 }, (_, n) => collection.insertOne({ userId: user.id, n })));
    console.log(await collection.count());`;
  const answers = await Promise.all(
    [1, 2, 3, 4].map(() => program(directory, body, { module: true, timeout: 60_000 })),
  );
  expect(answers).toEqual(["200", "200", "200", "200"]);
  const backend = await openBackend({ definition: QUICKSTART, baseFilePath: directory });
  expect(await backend.collection(DATABASE, COLLECTION).count()).toBe(800);
});

test("opening and closing the store loses no writes of another process", async () => {
  const directory = temporaryDirectory();
  await program(directory, `${WRITE} await app.close();`, { module: true });
  const writing = program(
    directory,
    `const app = new Realm.App({ ...options, metadata: { mode: "inMemory" } });
     const user = await app.logIn(Realm.Credentials.anonymous());
     const collection = user.mongoClient("mongodb-atlas").db("${DATABASE}").collection("${COLLECTION}");
     const end = Date.now() + 3000;
     let n = 0;
     while (Date.now() < end) await collection.insertOne({ userId: user.id, written: true, n: n++ });
     console.log(n);`,
    { module: true, timeout: 60_000 },
  );
  let done = false;
  const written = writing.finally(() => {
    done = true;
  });
  while (!done) {
    // The last connection of a process deletes the write-ahead log, unless another process has
    // one.
    const backend = await Realm.openBackend({
      id: "test-app",
      definition: QUICKSTART,
      baseFilePath: directory,
      logger: null,
    });
    await backend.collection(DATABASE, COLLECTION).insertOne({ userId: "parent" });
    await backend.close();
  }
  const backend = await openBackend({ definition: QUICKSTART, baseFilePath: directory });
  expect(await backend.collection(DATABASE, COLLECTION).count({ written: true })).toBe(Number(await written));
});

test("fifty SIGKILLs under load lose no acknowledged write", async () => {
  const directory = temporaryDirectory();
  const script = path.join(directory, "writer.mjs");
  fs.writeFileSync(
    script,
    `import Realm from ${JSON.stringify(path.join(ROOT, "index.mjs"))};
     import fs from "node:fs";
     const app = new Realm.App(${options(directory)});
     const user = await app.logIn(Realm.Credentials.anonymous());
     const collection = user.mongoClient("mongodb-atlas").db("${DATABASE}").collection("${COLLECTION}");
     let n = 0;
     const write = async () => {
       for (;;) {
         const _id = process.argv[2] + ":" + n++;
         await collection.insertOne({ _id, userId: user.id, text: "x".repeat(300) });
         // A single write, so that a line is complete or missing.
         fs.writeSync(1, _id + "\\n");
       }
     };
     await Promise.all(Array.from({ length: 16 }, write));`,
  );
  const acknowledged = [];
  for (let round = 0; round < 50; round++) {
    const child = spawn(process.execPath, [script, String(round)], { stdio: ["ignore", "pipe", "inherit"] });
    let output = "";
    await new Promise((resolve) => {
      child.stdout.on("data", (data) => {
        if (output === "") {
          // Kills it while it writes, at a different moment in each round.
          setTimeout(() => child.kill("SIGKILL"), (round * 7) % 60);
        }
        output += data;
      });
      child.on("close", resolve);
    });
    acknowledged.push(...output.slice(0, output.lastIndexOf("\n")).split("\n"));
  }
  expect(acknowledged.length).toBeGreaterThan(200);
  const backend = await openBackend({ definition: QUICKSTART, baseFilePath: directory, maxDocuments: 10_000_000 });
  const found = await backend.collection(DATABASE, COLLECTION).find({}, { projection: { text: 1 } });
  const ids = new Set(found.map(({ _id }) => _id));
  expect(acknowledged.filter((id) => !ids.has(id))).toEqual([]);
  expect(found.every(({ text }) => text.length === 300)).toBe(true);
  // All rounds had the same user, because the first log-in had been acknowledged too.
  const { currentUser } = await openKept(directory);
  expect(await customDataOf(currentUser).count()).toBe(found.length);
}, 180_000);
