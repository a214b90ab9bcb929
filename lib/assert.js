"use strict";

/** The error of a failed check. */
class AssertionError extends Error {
  constructor(message = "Assertion failed.") {
    super(message);
    this.name = "AssertionError";
  }
}

/** The error of a value with the wrong type. */
class TypeAssertionError extends AssertionError {
  constructor(expected, value, name) {
    super(`Expected ${name ? `'${name}'` : "value"} to be ${expected}, got ${describe(value)}`);
    this.name = "TypeAssertionError";
  }
}

/** The error of an invalid value. The message contains the value: do not use it for secrets. */
class ValueAssertionError extends TypeAssertionError {
  constructor(expected, value, name) {
    super(expected, value, name);
    if (typeof value === "string" || typeof value === "number") {
      this.message += ` (${typeof value === "string" ? JSON.stringify(value) : value})`;
    }
  }
}

function describe(value) {
  if (value === null || value === undefined || Number.isNaN(value)) {
    return String(value);
  }
  if (Array.isArray(value)) {
    return "an array";
  }
  if (typeof value === "function") {
    return value.name ? `a function or class named ${value.name}` : "an anonymous function";
  }
  if (typeof value !== "object") {
    return `a ${typeof value}`;
  }
  const prototype = Object.getPrototypeOf(value);
  const name = prototype?.constructor?.name;
  return !name || name === "Object" ? "an object" : `an instance of ${name}`;
}

const check = (holds, expected) => (value, name) => {
  if (!holds(value)) {
    throw new TypeAssertionError(expected, value, name);
  }
  return value;
};

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** Checks of arguments. Each returns its argument. */
const assert = {
  string: check((value) => typeof value === "string", "a string"),
  number: check((value) => typeof value === "number", "a number"),
  boolean: check((value) => typeof value === "boolean", "a boolean"),
  function: check((value) => typeof value === "function", "a function"),
  object: check(isObject, "an object"),
  array: check(Array.isArray, "an array"),
  /** An optional object of options. */
  options: check((value) => value === undefined || value === null || isObject(value), "an object"),
};

module.exports = { assert, AssertionError, TypeAssertionError, ValueAssertionError };
