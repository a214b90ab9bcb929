"use strict";

const { assert, ValueAssertionError } = require("../assert.js");

/** The usual options of functions. */
const DEFAULTS = Object.freeze({ threads: 1, timeLimit: 300_000, memoryLimit: 350, env: [] });

/** The most threads, and the least memory of one in MB, which Node itself needs. */
const MOST_THREADS = 64;
const LEAST_MEMORY = 32;
const MOST = 2 ** 31 - 1;

function checkNumber(value, name, least, most) {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new ValueAssertionError(`a whole number from ${least} to ${most}`, value, name);
  }
  return value;
}

/** Adds defaults to options. An option that is undefined gets its default too. */
function withDefaults(option) {
  const given = Object.entries(option).filter(([, value]) => value !== undefined);
  return { ...DEFAULTS, ...Object.fromEntries(given) };
}

/** Checks the option `functions`. Returns it with defaults. */
function functionOptions(option) {
  if (option === undefined) {
    return DEFAULTS;
  }
  const { threads, timeLimit, memoryLimit, env } = withDefaults(assert.object(option, "functions"));
  return {
    threads: checkNumber(threads, "functions.threads", 0, MOST_THREADS),
    timeLimit: checkNumber(timeLimit, "functions.timeLimit", 1, MOST),
    memoryLimit: checkNumber(memoryLimit, "functions.memoryLimit", LEAST_MEMORY, MOST),
    env: assert.array(env, "functions.env").map((name) => assert.string(name, "functions.env")),
  };
}

/** Returns the names of options that do not exist, as `functions.NAME`. */
const unknownFunctionOptions = (option = {}) =>
  Object.keys(option)
    .filter((name) => !Object.hasOwn(DEFAULTS, name))
    .map((name) => `functions.${name}`);

module.exports = { MOST_THREADS, functionOptions, unknownFunctionOptions };
