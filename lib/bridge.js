"use strict";

const native = require("./native.js");
const { decode, encode } = require("./bson/index.js");
const { callBack } = require("./callbacks.js");
const { toError } = require("./errors.js");
const { LEVELS } = require("./logger.js");

/** The pending operations, by their ids in the addon. */
const pending = new Map();

/** Callbacks that run before promises settle: listeners run before the caller continues. */
const beforeSettling = new Set();

/** The apps that receive the addon's log, as objects with their logger. Apps can share one. */
const listening = new Set();

/** Returns the loggers of those apps, without duplicates. */
const loggers = () => new Set([...listening].map(({ log }) => log));

/**
 * The connection to the addon. It exists only while an app is open or an operation is pending,
 * because it keeps the process alive.
 */
let bridge;

/** The number of open handles of the bridge. */
let openHandles = 0;

/** Receives the calls of functions that this thread runs: `(call) => void`. */
let onCall = () => {};

/** Receives the commands to start and end threads: `(command) => void`. */
let onCommand = () => {};

function deliver(ids, answers, together, lines, calls, commands) {
  if (lines.length > 0) {
    const logs = loggers();
    for (const { level, message, fields } of lines) {
      for (const log of logs) {
        callBack(log, level, { message, ...(fields && JSON.parse(fields)) });
      }
    }
  }
  for (const notify of beforeSettling) {
    notify();
  }
  let at = 0;
  ids.forEach((id, index) => {
    const operation = pending.get(id);
    pending.delete(id);
    let answer = answers[index];
    if (typeof answer === "number") {
      answer = together.subarray(at, at + answer);
      at += answer.length;
    }
    settle(answer, operation);
  });
  for (const command of commands) {
    onCommand(command);
  }
  for (const call of calls) {
    onCall(call);
  }
  releaseIfIdle();
}

function releaseIfIdle() {
  if (bridge && openHandles === 0 && pending.size === 0) {
    native.releaseBridge(bridge);
    bridge = undefined;
  }
}

/** Returns the bridge of this thread, which stays until the returned function is called. */
function holdBridge() {
  bridge ??= native.createBridge(deliver);
  openHandles += 1;
  const release = () => {
    openHandles -= 1;
    releaseIfIdle();
  };
  return { bridge, release };
}

/** Sets the receivers of calls and of commands. */
function receiveFunctions({ call = onCall, command = onCommand }) {
  onCall = call;
  onCommand = command;
}

/** Opens an app. Clears the encoded settings, because they can contain a key. */
function openWith(configuration) {
  const settings = encode(configuration);
  try {
    return native.open(bridge, settings);
  } finally {
    settings.fill(0);
  }
}

/** Opens an app in the addon. Returns the addon's report and the bridge of the app's handle. */
function openHandle(configuration) {
  bridge ??= native.createBridge(deliver);
  openHandles += 1;
  try {
    return { ...openWith(configuration), bridge };
  } catch (error) {
    openHandles -= 1;
    releaseIfIdle();
    throw error;
  }
}

/** Closes a result of `openHandle`. */
async function closeHandle({ bridge: opened, handle }) {
  try {
    await result(native.close(opened, handle));
  } finally {
    openHandles -= 1;
    releaseIfIdle();
  }
}

// On `process.exit()`, Node does not run the clean-up of an addon, which writes the session files.
process.once("exit", () => {
  if (bridge) {
    native.releaseBridge(bridge);
    bridge = undefined;
  }
});

/** Sets the addon's log level to the most detailed level of all loggers. */
function updateLogLevel() {
  if (bridge) {
    const levels = [...loggers()].map(({ level }) => LEVELS.indexOf(level));
    native.setLogLevel(bridge, LEVELS[Math.max(0, ...levels)]);
  }
}

/** Sends the addon's log to a logger. Returns a function that stops it. */
function listenToLog(log) {
  const app = { log };
  listening.add(app);
  updateLogLevel();
  return () => {
    listening.delete(app);
    updateLogLevel();
  };
}

const isBytes = (answer) => typeof answer.byteLength === "number";

/** Returns the value of an answer, or throws its error. `decoder` decodes its document. */
function read(answer, decoder) {
  if (answer === undefined || answer === null) {
    return undefined;
  }
  if (isBytes(answer)) {
    return decoder(answer).v;
  }
  throw toError(answer);
}

function settle(answer, { resolve, reject, decoder }) {
  try {
    resolve(read(answer, decoder));
  } catch (error) {
    reject(error);
  }
}

/**
 * Returns the result of an operation of the addon. If the operation is pending, this is a promise.
 * If it is complete, this is its value, or its error is thrown. Callers are async functions, which
 * treat all three alike.
 */
function result(started, decoder = decode) {
  if (typeof started !== "number") {
    return read(started, decoder);
  }
  return new Promise((resolve, reject) => {
    pending.set(started, { resolve, reject, decoder });
  });
}

/** Carries out a request of the operator by its name. */
async function administer({ bridge: opened, handle }, operation, payload = {}) {
  const request = encode({ ...payload, operation });
  try {
    return result(native.admin(opened, handle, request));
  } finally {
    // The address of a store can contain a password.
    request.fill(0);
  }
}

/** Returns the events of a stream. The stream ends when `isClosed` returns true for its app. */
function eventsOf({ bridge: opened, handle }, stream, isClosed) {
  return {
    next: async () => (isClosed() ? undefined : result(native.nextEvents(opened, handle, stream))),
    end: () => native.stopWatching(opened, handle, stream),
  };
}

module.exports = {
  native,
  openHandle,
  closeHandle,
  result,
  administer,
  holdBridge,
  receiveFunctions,
  eventsOf,
  beforeSettling,
  listenToLog,
  updateLogLevel,
};
