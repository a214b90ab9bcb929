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
  if (realm.isFunctionError(error)) {
    return error;
  }
  const isError = types.isNativeError(error) || typeof error?.message === "string";
  const converted = new realm.FunctionError(isError ? error.message : String(error));
  for (const name of FIELDS) {
    if (isError && error[name] !== undefined && error[name] !== null) {
      converted[name] = realm.convert(error[name]);
    }
  }
  return converted;
}

/** Returns the message of an error as the caller receives it. */
function messageOf(error) {
  const name = String(error.name);
  let message = String(error.message);
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
    return inspect(value, { breakLength: Number.POSITIVE_INFINITY });
  }
}

const isErrorLike = (value) =>
  types.isNativeError(value) ||
  (typeof value === "object" && value !== null && typeof value.message === "string" && typeof value.stack === "string");

/** Returns the stack of an error without the frames of the runtime. */
const stackOf = (error) =>
  String(error.stack)
    .split("\n")
    .filter((line) => !line.includes(__dirname + path.sep))
    .join("\n");

/** Converts a thrown value to the error of the call. */
function toFailure(thrown) {
  if (thrown instanceof CallError) {
    return new FunctionFailure(thrown.message, thrown.errorCode);
  }
  if (!isErrorLike(thrown)) {
    return new FunctionFailure(textOf(thrown));
  }
  const fields = { functionStack: stackOf(thrown) };
  if (thrown.name !== "FunctionError" || typeof thrown.errorCode !== "string") {
    return new FunctionFailure(messageOf(thrown), EXECUTION_ERROR, fields);
  }
  for (const name of FIELDS) {
    if (thrown[name] !== undefined) {
      fields[name] = thrown[name];
    }
  }
  return new FunctionFailure(messageOf(thrown), thrown.errorCode, fields);
}

module.exports = {
  CallError,
  EXECUTION_ERROR,
  FunctionFailure,
  isErrorLike,
  messageOf,
  textOf,
  toFailure,
  toFunctionError,
};
