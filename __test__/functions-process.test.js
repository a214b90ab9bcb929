"use strict";

// Processes and threads that end while functions run. Each test runs separate programs.

const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { ROOT, temporaryDirectory, writeDefinition } = require("./helpers.js");

const SOURCES = {
  sum: "exports = (a, b) => a + b;",
  slow: "exports = (time) => new Promise((resolve) => setTimeout(() => resolve('finished'), time));",
  sleep: "exports = () => new Promise(() => {});",
  spin: "exports = () => { for (;;) {} };",
  flood: "exports = () => { for (let n = 0; n < 100; n++) console.log(n); return new Promise(() => {}); };",
  write: `exports = async () => {
    const items = context.services.get("mongodb-atlas").db("app").collection("items");
    await new Promise((resolve) => setTimeout(resolve, 300));
    await items.insertOne({ n: 1 });
  };`,
  count: `exports = () => context.services.get("mongodb-atlas").db("app").collection("items").count();`,
};

const MANIFEST = ["write", "count"].map((name) => ({ name, run_as_system: true }));

function definition(sources = SOURCES) {
  const files = Object.entries(sources).map(([name, source]) => [`functions/${name}.js`, source]);
  return writeDefinition({ ...Object.fromEntries(files), "functions/config.json": MANIFEST });
}

/** Runs Node until it ends. Returns its outcome, and its duration `took` in milliseconds. */
function node(args, options = {}) {
  const begun = performance.now();
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, args, {
    encoding: "utf8",
    timeout: 30_000,
    cwd: ROOT,
    ...options,
  });
  return { status, signal, stdout, stderr, took: performance.now() - begun };
}

/** The beginning of programs: opens the app `app` and logs in `user`. */
const head = (options) => `
  const Realm = require(${JSON.stringify(ROOT)});
  const options = ${JSON.stringify({ id: "test-app", definition: definition(), store: "memory:", logger: null, ...options })};
  const open = async (more) => {
    const app = new Realm.App({ metadata: { mode: "inMemory" }, ...options, ...more });
    return { app, user: await app.logIn(Realm.Credentials.anonymous()) };
  };
  const sleep = (time) => new Promise((resolve) => setTimeout(resolve, time));
  const outcome = (call) => call.then((value) => value, (error) => error.message);`;

/** Runs a program until it ends by itself. */
function program(body, options) {
  const code = `${head(options)} (async () => { const { app, user } = await open(); ${body} })();`;
  return node(["-e", code]);
}

const ended = { status: 0, signal: null, stderr: "" };
const LIMITED = { functions: { threads: 1, timeLimit: 1500 } };

describe("a process ends by itself", () => {
  test("after calls, even if the app is not closed", () => {
    const answer = program("console.log(await user.functions.sum(1, 2));");
    expect(answer).toMatchObject({ ...ended, stdout: "3\n" });
    expect(answer.took).toBeLessThan(5_000);
  });

  test("after calls on the calling thread", () => {
    const answer = program("console.log(await user.functions.sum(1, 2));", { functions: { threads: 0 } });
    expect(answer).toMatchObject({ ...ended, stdout: "3\n" });
  });

  test("when a function that is not awaited has finished", () => {
    const answer = program("user.functions.slow(700).then(console.log);");
    expect(answer).toMatchObject({ ...ended, stdout: "finished\n" });
    expect(answer.took).toBeGreaterThan(700);
    expect(answer.took).toBeLessThan(5_000);
  });

  test("when a function that is not awaited has written its documents", () => {
    const directory = temporaryDirectory();
    const stored = { store: undefined, baseFilePath: directory };
    expect(program("user.functions.write();", stored)).toMatchObject(ended);
    expect(program("console.log(await user.functions.count());", stored)).toMatchObject({ ...ended, stdout: "1\n" });
  });

  test.each(["sleep", "spin"])("after the time limit of a function that hangs: %s", (name) => {
    const answer = program(`console.log(await outcome(user.functions.${name}()));`, LIMITED);
    expect(answer).toMatchObject({ ...ended, stdout: "execution time limit exceeded\n" });
    expect(answer.took).toBeGreaterThan(1_500);
    expect(answer.took).toBeLessThan(8_000);
  });

  test.each(["sleep", "spin"])("after a time limit shorter than a second: %s", (name) => {
    const short = { functions: { threads: 1, timeLimit: 200 } };
    const answer = program(`console.log(await outcome(user.functions.${name}()));`, short);
    expect(answer).toMatchObject({ ...ended, stdout: "execution time limit exceeded\n" });
    expect(answer.took).toBeLessThan(5_000);
  });
});

// The backend notices only after a second that a thread does not yield.
test("a thread that loops ends if the time limit is shorter than a second", () => {
  const answer = program(
    `await outcome(user.functions.spin());
     await sleep(2000);
     const before = process.cpuUsage();
     await sleep(1000);
     console.log(process.cpuUsage(before).user < 500_000, await outcome(user.functions.sum(1, 2)));`,
    { functions: { threads: 1, timeLimit: 200 } },
  );
  expect(answer).toMatchObject({ ...ended, stdout: "true 3\n" });
});

describe("process.exit()", () => {
  test.each(["slow", "sleep", "spin", "flood"])("ends the process during a call: %s", (name) => {
    const body = `user.functions.${name}(5000).catch(() => {}); await sleep(300); console.log("exiting"); process.exit(7);`;
    const answer = program(body);
    expect(answer).toMatchObject({ status: 7, signal: null, stdout: "exiting\n", stderr: "" });
    expect(answer.took).toBeLessThan(5_000);
  });

  test("ends the process before the thread has started", () => {
    expect(program("user.functions.spin(); process.exit(7);")).toMatchObject({ status: 7, signal: null, stderr: "" });
  });
});

describe("an app that is closed", () => {
  test.each(["slow", "sleep", "spin"])("fails its running calls: %s", (name) => {
    const answer = program(`
      await user.functions.sum(1, 1);
      const calls = [1, 2, 3].map(() => outcome(user.functions.${name}(20000)));
      await sleep(300);
      const begun = Date.now();
      await app.close();
      const took = Date.now() - begun;
      console.log(JSON.stringify({ errors: await Promise.all(calls), took, later: await outcome(user.functions.sum(1, 2)) }));`);
    expect(answer).toMatchObject(ended);
    const { errors, took, later } = JSON.parse(answer.stdout);
    expect(new Set(errors)).toEqual(new Set(["The app has been closed"]));
    expect(took).toBeLessThan(2_000);
    expect(later).toBe("The app has been closed");
    expect(answer.took).toBeLessThan(6_000);
  });

  test("fails calls whose thread has not started", () => {
    const answer = program(`
      const call = outcome(user.functions.sum(1, 1));
      await app.close();
      console.log(await call);`);
    expect(answer).toMatchObject(ended);
    expect(answer.stdout).toMatch(/closed|ended|^2$/);
  });

  test("opens again and calls functions, twenty times", () => {
    const answer = program(`
      await app.close();
      for (let round = 0; round < 20; round++) {
        const { app, user } = await open();
        const running = outcome(user.functions.sleep());
        if (await user.functions.sum(round, 1) !== round + 1) throw new Error("wrong sum");
        await app.close();
        await running;
      }
      console.log("closed");`);
    expect(answer).toMatchObject({ ...ended, stdout: "closed\n" });
  });
});

describe("two apps in one process", () => {
  test("have their own functions, and one goes on when the other closes", () => {
    const other = definition({ sum: "exports = (a, b) => 'other ' + (a + b);" });
    const answer = program(`
      const second = await open({ id: "other", definition: ${JSON.stringify(other)} });
      console.log(await Promise.all([user.functions.sum(1, 2), second.user.functions.sum(1, 2)]));
      await app.close();
      console.log(await second.user.functions.sum(2, 2));`);
    expect(answer).toMatchObject({ ...ended, stdout: "[ 3, 'other 3' ]\nother 4\n" });
  });

  test("can share a store with an operator's handle, in every order of closing", () => {
    const stored = { store: undefined, baseFilePath: temporaryDirectory() };
    const answer = program(
      `
      const backend = await Realm.openBackend(options);
      console.log(await user.functions.write(), await backend.collection("app", "items").count());
      await backend.close();
      console.log(await user.functions.sum(1, 2));
      await app.close();
      const first = await Realm.openBackend(options);
      const second = await open();
      console.log(await second.user.functions.sum(2, 2));
      await first.close();
      console.log(await outcome(second.user.functions.sum(3, 2)));
      await second.app.close();`,
      stored,
    );
    expect(answer).toMatchObject({ ...ended, stdout: "null 1\n3\n4\n5\n" });
  });

  test("of one id and store share the threads", () => {
    const answer = program(`
      const second = new Realm.App("test-app");
      await app.close();
      console.log(await second.currentUser.functions.sum(1, 2));`);
    expect(answer).toMatchObject({ ...ended, stdout: "3\n" });
  });
});

/** Runs a program in worker threads. `report` is the code of the main thread. */
function inWorker(body, report, options) {
  const code = `${head(options)} const { parentPort } = require("node:worker_threads");
    (async () => { const { app, user } = await open(); ${body} })();`;
  return node([
    "-e",
    `const { Worker } = require("node:worker_threads");
     const sleep = (time) => new Promise((resolve) => setTimeout(resolve, time));
     const start = () => new Worker(${JSON.stringify(code)}, { eval: true });
     const exit = (worker) => new Promise((resolve, reject) => worker.on("exit", resolve).on("error", reject));
     (async () => { ${report} })();`,
  ]);
}

describe("a worker thread", () => {
  test("calls functions, and ends by itself", () => {
    const answer = inWorker(
      "console.log(await user.functions.sum(1, 2)); user.functions.slow(300).then(console.log);",
      "console.log(await exit(start()));",
    );
    expect(answer).toMatchObject({ ...ended, stdout: "3\nfinished\n0\n" });
  });

  test.each(["slow", "sleep", "spin"])("can be terminated during a call: %s", (name) => {
    const answer = inWorker(
      `user.functions.${name}(20000).catch(() => {}); setTimeout(() => parentPort.postMessage("up"), 100);`,
      `for (let round = 0; round < 5; round++) {
         const worker = start();
         await new Promise((resolve) => worker.once("message", resolve));
         await sleep(round * 30);
         console.log(await worker.terminate());
       }`,
    );
    expect(answer).toMatchObject({ ...ended, stdout: "1\n".repeat(5) });
    expect(answer.took).toBeLessThan(15_000);
  });

  test("can be terminated while another thread calls functions on the same store", () => {
    const stored = { store: undefined, baseFilePath: temporaryDirectory() };
    const answer = node([
      "-e",
      `${head(stored)}
       const { Worker } = require("node:worker_threads");
       const code = ${JSON.stringify(`${head(stored)} const { parentPort } = require("node:worker_threads");
         (async () => {
           const { user } = await open();
           await user.functions.sum(1, 1);
           setInterval(() => {}, 1000);
           parentPort.postMessage("up");
         })();`)};
       (async () => {
         const worker = new Worker(code, { eval: true });
         await new Promise((resolve) => worker.once("message", resolve));
         const { app, user } = await open();
         console.log(await user.functions.sum(1, 2));
         const running = outcome(user.functions.slow(500));
         await sleep(100);
         await worker.terminate();
         console.log(await running);
         console.log(await outcome(user.functions.sum(2, 2)));
         await app.close();
       })();`,
    ]);
    expect(answer).toMatchObject({ ...ended, stdout: "3\nfinished\n4\n" });
  });
});

/** Runs one test file with `jest --detectOpenHandles`. Returns jest's output. */
function detectOpenHandles(body) {
  const directory = fs.realpathSync(temporaryDirectory());
  fs.writeFileSync(
    path.join(directory, "handles.test.js"),
    `${head(LIMITED)}
     test("handles", async () => { const { app, user } = await open(); ${body} });`,
  );
  const jest = path.join(ROOT, "node_modules/jest/bin/jest.js");
  const config = JSON.stringify({ rootDir: directory, testEnvironment: "node", transform: {} });
  const { status, stderr } = node([jest, "--ci", "--detectOpenHandles", "--config", config], { cwd: directory });
  expect({ status, stderr }).toEqual({ status: 0, stderr: expect.stringContaining("1 passed") });
  return stderr;
}

describe("jest", () => {
  test.each([
    ["called a function", "expect(await user.functions.sum(1, 2)).toBe(3); await app.close();"],
    [
      "closed the app during calls",
      "const call = outcome(user.functions.sleep()); await sleep(200); await app.close(); await call;",
    ],
    ["had a function that was ended", "await outcome(user.functions.spin()); await app.close();"],
  ])("reports no open handle in a file that %s", (_, body) => {
    expect(detectOpenHandles(body)).not.toContain("open handle");
  });

  test("reports an app that is left open", () => {
    expect(detectOpenHandles("await user.functions.sum(1, 2);")).toContain("open handle");
  });
});
