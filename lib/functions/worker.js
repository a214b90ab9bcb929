"use strict";

// The entry of a thread that runs functions.

const { parentPort, workerData } = require("node:worker_threads");
const { attach } = require("./host.js");

if (attach(workerData.backend, workerData.host)) {
  // The port keeps the thread alive.
  parentPort.on("message", () => {});
}
