"use strict";

// Errors of Node's own operations, such as `fetch`, belong to no context. In a worker, the
// asynchronous context leads to the call that began the operation. The application's thread
// (`threads: 0`) does not pay for the tracking.

const { AsyncLocalStorage } = require("node:async_hooks");

let storage;

/** Lets this thread track its calls. */
function trackCalls() {
  storage = new AsyncLocalStorage();
}

/** Runs a task as part of a call. */
const runAs = (call, task) => (storage === undefined ? task() : storage.run(call, task));

/** Returns the call that began the current operation, if this thread tracks its calls. */
const currentCall = () => storage?.getStore();

module.exports = { currentCall, runAs, trackCalls };
