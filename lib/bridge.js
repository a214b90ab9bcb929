"use strict";

const native = require("./native.js");
const { decode } = require("./bson.js");
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

const bridge = native.createBridge((ids, answers, together, lines) => {
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
});

// On `process.exit()` Node does not let an addon clean up.
process.once("exit", () => native.writeSnapshots(bridge));

/** Has the native side log up to the level of the loudest logger. */
function updateLogLevel() {
  const levels = [...loggers()].map(({ level }) => LEVELS.indexOf(level));
  native.setLogLevel(bridge, LEVELS[Math.max(0, ...levels)]);
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
function eventsOf(handle, stream, isClosed) {
  return {
    next: async () => (isClosed() ? undefined : result(native.nextEvents(bridge, handle, stream))),
    end: () => native.stopWatching(bridge, handle, stream),
  };
}

module.exports = { native, bridge, result, eventsOf, beforeSettling, listenToLog, updateLogLevel };
