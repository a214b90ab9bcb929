"use strict";

const native = require("./native.js");
const { decode } = require("./bson.js");
const { callBack } = require("./callbacks.js");
const { toError } = require("./errors.js");

/** What is under way, by the id that the native side gave it. */
const pending = new Map();

/** Called before promises are settled, so that listeners hear of a change before who caused it. */
const beforeSettling = new Set();

/** Takes the lines that the native side logs. */
const logLines = new Set();

const bridge = native.createBridge((ids, answers, lines) => {
  for (const { level, message } of lines) {
    for (const log of logLines) {
      callBack(log, level, message);
    }
  }
  for (const notify of beforeSettling) {
    notify();
  }
  ids.forEach((id, index) => {
    const { resolve, reject } = pending.get(id);
    pending.delete(id);
    settle(answers[index], resolve, reject);
  });
});

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

module.exports = { native, bridge, result, beforeSettling, logLines };
