"use strict";

const native = require("../native/index.js");
const { decode } = require("./bson.js");
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
      log(level, message);
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

function settle(answer, resolve, reject) {
  if (answer === undefined || answer === null) {
    return resolve(undefined);
  }
  if (!isBytes(answer)) {
    return reject(toError(answer));
  }
  try {
    resolve(decode(answer).v);
  } catch (error) {
    reject(error);
  }
}

/** A promise for what the native side has started, or has done already. */
function promise(started) {
  return new Promise((resolve, reject) => {
    if (typeof started === "number") {
      pending.set(started, { resolve, reject });
    } else {
      settle(started, resolve, reject);
    }
  });
}

module.exports = { native, bridge, promise, beforeSettling, logLines };
