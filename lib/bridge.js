"use strict";

const native = require("./native.js");
const { decode } = require("./bson/index.js");
const { callBack } = require("./callbacks.js");
const { toError } = require("./errors.js");
const { LEVELS } = require("./logger.js");

/** What is under way, by the id that the native side gave it. */
const pending = new Map();

/** Called before promises are settled, so that listeners hear of a change before who caused it. */
const beforeSettling = new Set();

/** The apps that take the lines of the native side, as objects with their logger. Several may share one. */
const listening = new Set();

/** The loggers of those apps, each once. */
const loggers = () => new Set([...listening].map(({ log }) => log));

/** The way to the native side. It exists while an app is open or an operation is pending: Node counts it as an open handle. */
let bridge;

/** The number of handles that are open on it. */
let openHandles = 0;

function deliver(ids, answers, together, lines) {
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
    const { resolve, reject } = pending.get(id);
    pending.delete(id);
    let answer = answers[index];
    if (typeof answer === "number") {
      answer = together.subarray(at, at + answer);
      at += answer.length;
    }
    settle(answer, resolve, reject);
  });
  releaseIfIdle();
}

function releaseIfIdle() {
  if (bridge && openHandles === 0 && pending.size === 0) {
    native.releaseBridge(bridge);
    bridge = undefined;
  }
}

/** Opens an app on the native side. Returns what it reports, with the bridge that its handle belongs to. */
function openHandle(configuration) {
  bridge ??= native.createBridge(deliver);
  openHandles += 1;
  try {
    return { ...native.open(bridge, configuration), bridge };
  } catch (error) {
    openHandles -= 1;
    releaseIfIdle();
    throw error;
  }
}

/** Closes what `openHandle` returned. */
async function closeHandle({ bridge: opened, handle }) {
  try {
    await result(native.close(opened, handle));
  } finally {
    openHandles -= 1;
    releaseIfIdle();
  }
}

// On `process.exit()` Node does not let an addon clean up.
process.once("exit", () => bridge && native.writeSnapshots(bridge));

/** Has the native side log up to the level of the loudest logger. */
function updateLogLevel() {
  if (bridge) {
    const levels = [...loggers()].map(({ level }) => LEVELS.indexOf(level));
    native.setLogLevel(bridge, LEVELS[Math.max(0, ...levels)]);
  }
}

/** Tells a logger what the native side logs, until the function that is returned is called. */
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

/** The value of an answer; throws the error that it is. */
function read(answer) {
  if (answer === undefined || answer === null) {
    return undefined;
  }
  if (isBytes(answer)) {
    return decode(answer).v;
  }
  throw toError(answer);
}

function settle(answer, resolve, reject) {
  try {
    resolve(read(answer));
  } catch (error) {
    reject(error);
  }
}

/**
 * What the native side has started: a promise, or what it has done already, which is the value itself, or thrown. For
 * an async function, to which all three are the same.
 */
function result(started) {
  if (typeof started !== "number") {
    return read(started);
  }
  return new Promise((resolve, reject) => {
    pending.set(started, { resolve, reject });
  });
}

/** The events of a stream of an open app. It ends with the app, about which `isClosed` is asked. */
function eventsOf({ bridge: opened, handle }, stream, isClosed) {
  return {
    next: async () => (isClosed() ? undefined : result(native.nextEvents(opened, handle, stream))),
    end: () => native.stopWatching(opened, handle, stream),
  };
}

module.exports = { native, openHandle, closeHandle, result, eventsOf, beforeSettling, listenToLog, updateLogLevel };
