"use strict";

const { assert, TypeAssertionError } = require("./assert.js");

/** Writes what needs attention to standard error, and the one line that says what is being run. */
function toStandardError(level, message) {
  if (level === "warn" || level === "error" || level === "info") {
    process.stderr.write(`userkeep ${level}: ${message}\n`);
  }
}

/**
 * The logger of an app as a function of level and message. `logger` may be such a function, an object with the methods
 * of `console`, or `null` for none.
 */
function makeLogger(logger) {
  if (logger === undefined) {
    return toStandardError;
  }
  if (logger === null) {
    return () => {};
  }
  if (typeof logger === "function") {
    return logger;
  }
  if (typeof logger !== "object") {
    throw new TypeAssertionError("a function or an object with the methods of console", logger, "logger");
  }
  return (level, message) => {
    const write = logger[level] ?? logger.log;
    assert.function(write, `logger.${level}`);
    write.call(logger, message);
  };
}

module.exports = { makeLogger };
