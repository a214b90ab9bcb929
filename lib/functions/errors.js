"use strict";

const path = require("node:path");
const { inspect, types } = require("node:util");

/** The code of an error that a function throws, or that none of the other codes describes. */
const EXECUTION_ERROR = "FunctionExecutionError";

/** V8's two commonest texts and the service's. They are replaced only in the caller's answer. */
const REPLACED_TEXTS = [
  { name: "ReferenceError", pattern: /^(\S+) is not defined$/, text: "'$1' is not defined" },
  {
    name: "TypeError",
    pattern: /^Cannot read properties of (undefined|null) \(reading '(.*)'\)$/s,
    text: "Cannot access member '$2' of $1",
  },
];

/** The fields of a backend's error that a function can read, if it has them. */
const FIELDS = ["code", "errorCode", "serverCode", "errorLabels", "status"];

/** The error of a call that fails. `messages` contains the console lines of the function. */
class FunctionFailure extends Error {
  messages = [];
  dropped = 0;

  constructor(message, errorCode = EXECUTION_ERROR, fields = {}) {
    super(message);
    this.name = "FunctionFailure";
    this.errorCode = errorCode;
    Object.assign(this, fields);
  }
}

/** An error of a member of `context`. The function receives it as a `FunctionError`. */
class CallError extends Error {
  constructor(message, errorCode = EXECUTION_ERROR) {
    super(message);
    this.name = "CallError";
    this.errorCode = errorCode;
  }
}

/** Converts an error to a `FunctionError` of a realm. */
function toFunctionError(realm, error) {
  if (attempt(() => realm.isFunctionError(error)) === true) {
    return error;
  }
  const isError = types.isNativeError(error) || attempt(() => typeof error?.message === "string") === true;
  const text = attempt(() => String(isError ? error.message : error)) ?? textOf(error);
  const converted = new realm.FunctionError(text);
  for (const name of FIELDS) {
    const field = isError ? attempt(() => error[name]) : undefined;
    if (field !== undefined && field !== null) {
      converted[name] = realm.convert(field);
    }
  }
  return converted;
}

/** Returns the result of `read`, or undefined if it throws, as getters of a value can. */
function attempt(read) {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/** Returns the message of an error as the caller receives it. */
function messageOf(error) {
  const name = attempt(() => String(error.name)) ?? "";
  let message = attempt(() => String(error.message)) ?? "the error has no readable message";
  for (const { name: replaced, pattern, text } of REPLACED_TEXTS) {
    if (name === replaced) {
      message = message.replace(pattern, text);
    }
  }
  return name === "Error" || name === "FunctionError" || name === "" ? message : `${name}: ${message}`;
}

/** Returns a value that is not an error as text: a string as it is, another value as JSON. */
function textOf(value) {
  if (typeof value === "string") {
    return value;
  }
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    const inspected = attempt(() => inspect(value, { breakLength: Number.POSITIVE_INFINITY, customInspect: false }));
    return inspected ?? "the thrown value cannot be shown";
  }
}

const isErrorLike = (value) =>
  types.isNativeError(value) ||
  (typeof value === "object" &&
    value !== null &&
    attempt(() => typeof value.message === "string" && typeof value.stack === "string") === true);

/** Returns any thrown value as text. */
const describe = (value) => (isErrorLike(value) ? messageOf(value) : textOf(value));

/** Returns the stack of an error without the frames of the runtime. */
const stackOf = (error) =>
  (attempt(() => String(error.stack)) ?? "")
    .split("\n")
    .filter((line) => !line.includes(__dirname + path.sep))
    .join("\n");

/** Returns true for an instance of a class. `instanceof` alone throws for some proxies. */
const isInstance = (value, Class) => attempt(() => value instanceof Class) === true;

const isCallError = (value) => isInstance(value, CallError);

/** Converts any thrown value to the error of the call. Never throws. */
function toFailure(thrown) {
  if (isInstance(thrown, FunctionFailure)) {
    return thrown;
  }
  if (isCallError(thrown)) {
    return new FunctionFailure(thrown.message, thrown.errorCode);
  }
  if (!isErrorLike(thrown)) {
    return new FunctionFailure(textOf(thrown));
  }
  const fields = { functionStack: stackOf(thrown) };
  const read = Object.fromEntries(FIELDS.map((name) => [name, attempt(() => thrown[name])]));
  if (attempt(() => thrown.name) !== "FunctionError" || typeof read.errorCode !== "string") {
    return new FunctionFailure(messageOf(thrown), EXECUTION_ERROR, fields);
  }
  for (const [name, value] of Object.entries(read)) {
    if (value !== undefined) {
      fields[name] = value;
    }
  }
  return new FunctionFailure(messageOf(thrown), read.errorCode, fields);
}

module.exports = {
  CallError,
  EXECUTION_ERROR,
  FunctionFailure,
  describe,
  isCallError,
  toFailure,
  toFunctionError,
};
