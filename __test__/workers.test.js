"use strict";

// Loading, sharing and unloading of the addon. Each test runs separate processes, so that a crash
// shows as a signal.

const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { QUICKSTART, ROOT, temporaryDirectory } = require("./helpers.js");

/** Runs Node until it ends; returns its status, signal and output. */
function node(args, options = {}) {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, args, {
    encoding: "utf8",
    timeout: 110_000,
    ...options,
  });
  return { status, signal, stdout, stderr };
}

/** Copies the package, as npm installs a second copy. Returns its directory. */
function installCopy() {
  const modules = path.join(temporaryDirectory(), "node_modules");
  const directory = path.join(modules, "userkeep");
  fs.mkdirSync(directory, { recursive: true });
  for (const name of ["index.js", "package.json", "lib", "native"]) {
    fs.cpSync(path.join(ROOT, name), path.join(directory, name), { recursive: true });
  }
  fs.symlinkSync(fs.realpathSync(path.join(ROOT, "node_modules/bson")), path.join(modules, "bson"), "junction");
  return directory;
}

/**
 * Runs a program with two copies of the package, `one` and `two`, and `open(copy, id)`: apps on
 * one file.
 */
function withTwoCopies(body) {
  const store = `sqlite:${path.join(temporaryDirectory(), "app.sqlite")}`;
  const program = `
    const one = require(${JSON.stringify(ROOT)});
    const two = require(${JSON.stringify(installCopy())});
    const open = (Realm, id, store = ${JSON.stringify(store)}) => new Realm.App({ id, definition: ${JSON.stringify(QUICKSTART)},
      store, logger: null, metadata: { mode: "inMemory" } });
    const logIn = (Realm, app) => app.logIn(Realm.Credentials.anonymous(false));
    (async () => { ${body} })();`;
  return node(["-e", program]);
}

const REFUSED = /another copy of Userkeep, or another SQLite library, has the file open in this process/;

const kinds = ["turns", "at-once", "terminated"].flatMap((mode) => [
  [mode, []],
  [mode, ["main"]],
]);

test.each(kinds)(
  "20 workers load the package: %s %j",
  (mode, main) => {
    const answer = node([path.join(ROOT, "scripts/worker-rounds.cjs"), "20", mode, ...main]);
    expect(answer).toEqual({ status: 0, signal: null, stdout: "20\n", stderr: "" });
  },
  120_000,
);

test("two copies of the package work in one process with separate stores", () => {
  const answer = withTwoCopies(`
    const apps = [open(one, "one", "memory:"), open(two, "two", "memory:"), open(two, "file")];
    const users = [await logIn(one, apps[0]), await logIn(two, apps[1]), await logIn(two, apps[2])];
    console.log(one.App === two.App, new Set(users.map(({ id }) => id)).size);
    await Promise.all(apps.map((app) => app.close()));`);
  expect(answer).toEqual({ status: 0, signal: null, stdout: "false 3\n", stderr: "" });
});

test("a second copy cannot open a file until the first has closed it", () => {
  const answer = withTwoCopies(`
    const first = open(one, "one");
    await logIn(one, first);
    try {
      open(two, "two");
    } catch ({ message }) {
      console.log(message);
    }
    const again = open(one, "three");
    await logIn(one, again);
    await first.close();
    await again.close();
    const second = open(two, "two");
    await logIn(two, second);
    console.log("opened");
    await second.close();`);
  expect(answer).toMatchObject({ status: 0, signal: null, stderr: "" });
  expect(answer.stdout).toMatch(REFUSED);
  expect(answer.stdout.split("\n").slice(1)).toEqual(["opened", ""]);
});

test("if two copies create one file at the same time, one is rejected", () => {
  const answer = withTwoCopies(`
    const [first, second] = [open(one, "one"), open(two, "two")];
    const settled = await Promise.allSettled([logIn(one, first), logIn(two, second)]);
    console.log(settled.map(({ status }) => status).sort().join());
    console.log(settled.find(({ reason }) => reason)?.reason.message);
    await first.close();
    await second.close();`);
  expect(answer).toMatchObject({ status: 0, signal: null, stderr: "" });
  expect(answer.stdout).toMatch(/^fulfilled,rejected\n/);
  expect(answer.stdout).toMatch(REFUSED);
});

/** Runs one test file with `jest --detectOpenHandles`. Returns jest's output. */
function detectOpenHandles(body) {
  const directory = fs.realpathSync(temporaryDirectory());
  fs.writeFileSync(
    path.join(directory, "handles.test.js"),
    `const Realm = require(${JSON.stringify(ROOT)});
     const options = { id: "handles", definition: ${JSON.stringify(QUICKSTART)}, store: "memory:", logger: null };
     test("handles", async () => { ${body} });`,
  );
  const jest = path.join(ROOT, "node_modules/jest/bin/jest.js");
  const config = JSON.stringify({ rootDir: directory, testEnvironment: "node", transform: {} });
  const { status, stderr } = node([jest, "--ci", "--detectOpenHandles", "--config", config], { cwd: directory });
  expect({ status, stderr }).toEqual({ status: 0, stderr: expect.stringContaining("1 passed") });
  return stderr;
}

test.each([
  ["that loads the package", ""],
  [
    "that closes its app",
    "const app = new Realm.App(options); await app.logIn(Realm.Credentials.anonymous()); await app.close();",
  ],
  [
    "that shuts down",
    "const app = new Realm.App(options); await app.logIn(Realm.Credentials.anonymous()); await Realm.shutdown();",
  ],
  [
    "that closes and opens again",
    `for (const id of ["one", "two"]) {
       const app = new Realm.App({ ...options, id });
       const user = await app.logIn(Realm.Credentials.anonymous());
       const stream = user.mongoClient("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data").watch();
       const next = stream.next();
       await app.close();
       await next;
     }`,
  ],
  [
    "that serves",
    `const server = await Realm.serve({ ...options, id: undefined, app: "handles", port: 0 });
     const app = new Realm.App({ id: "remote", baseUrl: server.url, logger: null, metadata: { mode: "inMemory" } });
     await app.close();
     await server.close();`,
  ],
  [
    "that fails to open",
    'expect(() => new Realm.App({ ...options, definition: "/missing" })).toThrow("cannot be read");',
  ],
])("jest reports no open handle in a file %s", (_, body) => {
  expect(detectOpenHandles(body)).not.toContain("open handle");
});

test("jest reports an app that is left open", () => {
  expect(detectOpenHandles("new Realm.App(options);")).toContain("open handle");
});

/**
 * Runs a program with `workers` terminated workers of this code; the worker posts when it is up.
 */
function afterTermination(code, workers, report) {
  const program = `
    const { Worker } = require("node:worker_threads");
    const fs = require("node:fs");
    const net = require("node:net");
    const descriptors = ["/proc/self/fd", "/dev/fd"].find((directory) => fs.existsSync(directory));
    const open = () => (descriptors ? fs.readdirSync(descriptors).length : 0);
    const code = ${JSON.stringify(`
      const Realm = require(${JSON.stringify(ROOT)});
      const { parentPort, workerData } = require("node:worker_threads");
      (async () => { ${code} })();`)};
    const run = (workerData) => new Promise((resolve, reject) => {
      const worker = new Worker(code, { eval: true, workerData });
      let said;
      worker.on("message", (message) => { said = message; setTimeout(() => worker.terminate(), 20); });
      worker.on("error", reject);
      worker.on("exit", () => resolve(said));
    });
    /** Waits until a condition holds; false after ten seconds. */
    const until = async (holds) => {
      for (const end = Date.now() + 10_000; Date.now() < end; await new Promise((next) => setTimeout(next, 50))) {
        if (await holds()) return true;
      }
      return false;
    };
    (async () => {
      await run(0);
      const before = open();
      let said;
      for (let round = 1; round <= ${workers}; round++) said = await run(round);
      ${report}
    })();`;
  return node(["-e", program], { cwd: temporaryDirectory() });
}

test("a terminated worker that follows a collection releases its store", () => {
  const answer = afterTermination(
    `const app = new Realm.App({ id: "w" + workerData, definition: ${JSON.stringify(QUICKSTART)},
       store: "sqlite:w" + workerData + ".sqlite", logger: null, metadata: { mode: "inMemory" } });
     const user = await app.logIn(Realm.Credentials.anonymous());
     const collection = user.mongoClient("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data");
     setTimeout(() => parentPort.postMessage("up"), 50);
     for await (const event of collection.watch()) parentPort.postMessage(event);`,
    10,
    "console.log(await until(() => open() <= before + 5));",
  );
  expect(answer).toEqual({ status: 0, signal: null, stdout: "true\n", stderr: "" });
});

test("a terminated worker that serves does not listen any more", () => {
  const answer = afterTermination(
    `const { url } = await Realm.serve({ app: "w", definition: ${JSON.stringify(QUICKSTART)}, store: "memory:", port: 0,
       logger: null });
     parentPort.postMessage(url);`,
    1,
    `const refuses = () => new Promise((resolve) => {
       const socket = net.connect(Number(new URL(said).port), "127.0.0.1");
       socket.once("connect", () => { socket.destroy(); resolve(false); });
       socket.once("error", () => resolve(true));
     });
     console.log(await until(refuses));`,
  );
  expect(answer).toEqual({ status: 0, signal: null, stdout: "true\n", stderr: "" });
});
