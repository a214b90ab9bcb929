"use strict";

// Starts and ends the threads that run the functions of the apps of this thread.

const path = require("node:path");
const { Worker } = require("node:worker_threads");
const { native, receiveFunctions } = require("../bridge.js");
const { MEMORY_EXIT_CODE } = require("./memory.js");

/** The threads of each app, by its handle: a map of workers by their numbers. */
const threadsOf = new Map();

/** The options of the functions of each app, by its handle. */
const optionsOf = new Map();

/** The backends whose functions this thread runs (`threads: 0`), by the handle of the app. */
const ownBackends = new Map();

/** Returns the named variables of the environment. */
const pick = (names) =>
  Object.fromEntries(names.filter((name) => name in process.env).map((name) => [name, process.env[name]]));

function startThread({ handle, backend, host }) {
  const { memoryLimit, env, threads: count } = optionsOf.get(handle);
  if (count === 0) {
    if (require("./host.js").attach(backend, host)) {
      ownBackends.set(handle, backend);
    } else {
      native.functionHostEnded(backend, host, false);
    }
    return;
  }
  const worker = new Worker(path.join(__dirname, "worker.js"), {
    workerData: { backend, host, memoryLimit },
    env: pick(env),
    resourceLimits: { maxOldGenerationSizeMb: memoryLimit },
    execArgv: [],
    name: "userkeep functions",
  });
  worker.unref();
  const threads = threadsOf.get(handle);
  threads.set(host, worker);
  let exceededMemory = false;
  worker.on("error", (error) => {
    exceededMemory = error.code === "ERR_WORKER_OUT_OF_MEMORY";
    if (!exceededMemory) {
      native.logOfFunction("error", `a thread of functions failed: ${error.stack ?? error}`);
    }
  });
  worker.on("exit", (code) => {
    threads.delete(host);
    native.functionHostEnded(backend, host, exceededMemory || code === MEMORY_EXIT_CODE);
  });
}

receiveFunctions({
  command: (command) => {
    const { handle, host, isStart } = command;
    // The app can have been closed in the meantime.
    if (!threadsOf.has(handle)) {
      return;
    }
    if (isStart) {
      startThread(command);
    } else {
      threadsOf.get(handle).get(host)?.terminate();
    }
  },
});

/** Lets an app start threads. */
function addApp(handle, options) {
  threadsOf.set(handle, new Map());
  optionsOf.set(handle, options);
}

/** Ends the threads of an app. */
async function removeApp(handle) {
  const threads = threadsOf.get(handle) ?? new Map();
  threadsOf.delete(handle);
  optionsOf.delete(handle);
  if (ownBackends.has(handle)) {
    require("./host.js").detach(ownBackends.get(handle));
    ownBackends.delete(handle);
  }
  await Promise.all([...threads.values()].map((worker) => worker.terminate()));
}

module.exports = { addApp, removeApp };
