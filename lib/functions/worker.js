"use strict";

// The entry of a thread that runs functions.

const { parentPort, workerData } = require("node:worker_threads");
const { attach } = require("./host.js");
const { MEMORY_EXIT_CODE, limitMemory } = require("./memory.js");
const { protectShared } = require("./protect.js");
const { watchShared } = require("./shared-objects.js");
const { surviveErrors } = require("./unhandled.js");

// In a worker, this ends only the thread.
limitMemory(workerData.memoryLimit, () => process.exit(MEMORY_EXIT_CODE));
// Buffers of several calls would share the memory of the pool.
Buffer.poolSize = 0;
surviveErrors();
protectShared();
watchShared();

if (attach(workerData.backend, workerData.host)) {
  // The port keeps the thread alive.
  parentPort.on("message", () => {});
}
