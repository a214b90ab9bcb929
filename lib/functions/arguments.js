"use strict";

const { CallError } = require("./errors.js");

// Checks of the arguments of `context`'s members. Each returns its argument. `method` is the name
// that the message begins with, as in the service's own messages.

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

const wrong = (method, name, expected) =>
  new CallError(`${method}: "${name}" argument must be ${expected}`, "InvalidParameter");

function checkString(method, name, value) {
  if (typeof value !== "string") {
    throw wrong(method, name, "a string");
  }
  return value;
}

function checkObject(method, name, value) {
  if (!isObject(value)) {
    throw wrong(method, name, "an object");
  }
  return value;
}

/** Checks an argument that can be omitted. */
const checkOptional = (method, name, value) =>
  value === undefined || value === null ? undefined : checkObject(method, name, value);

/** Checks the last argument of a method: its options. */
const checkOptions = (method, options) => checkOptional(method, "options", options) ?? {};

function checkArray(method, name, value) {
  if (!Array.isArray(value)) {
    throw wrong(method, name, "an array");
  }
  return value;
}

/** Checks a number of documents, which can be a value of BSON. */
function checkCount(method, name, value) {
  const number = typeof value?._bsontype === "string" ? Number(value) : value;
  if (!Number.isSafeInteger(number) || number < 0) {
    throw wrong(method, name, "a non-negative whole number");
  }
  return number;
}

/** Checks an update: a document or a pipeline. */
const checkUpdate = (method, update) => (Array.isArray(update) ? update : checkObject(method, "update", update));

/** Returns true for values that have no place in BSON, so that an encoder omits their fields. */
const isOmitted = (value) =>
  value === undefined || typeof value === "symbol" || (typeof value === "function" && value._bsontype === undefined);

/** Rejects `undefined` in a filter. Without the field, the filter would match other documents. */
function rejectUndefined(value) {
  if (isOmitted(value)) {
    throw Object.assign(new CallError("(BadValue) cannot compare to undefined", "MongoDBError"), { serverCode: 2 });
  }
  if (typeof value !== "object" || value === null || value._bsontype !== undefined || ArrayBuffer.isView(value)) {
    return;
  }
  for (const item of Array.isArray(value) ? value : Object.values(value)) {
    rejectUndefined(item);
  }
}

/** Checks a filter that must be given. `name` is `query` or `filter`. */
function checkFilter(method, filter, name = "query") {
  checkObject(method, name, filter);
  rejectUndefined(filter);
  return filter;
}

/** Checks a filter that can be omitted. */
const checkOptionalFilter = (method, filter) => checkFilter(method, filter ?? {});

/** Checks a pipeline, and the filters of its `$match` stages on every level. */
function checkPipeline(method, pipeline) {
  checkArray(method, "pipeline", pipeline);
  rejectUndefinedMatches(pipeline);
  return pipeline;
}

function rejectUndefinedMatches(value) {
  if (typeof value !== "object" || value === null || value._bsontype !== undefined) {
    return;
  }
  for (const [name, item] of Object.entries(value)) {
    if (name === "$match") {
      rejectUndefined(item);
    }
    rejectUndefinedMatches(item);
  }
}

module.exports = {
  checkArray,
  checkCount,
  checkFilter,
  checkObject,
  checkOptional,
  checkOptionalFilter,
  checkOptions,
  checkPipeline,
  checkString,
  checkUpdate,
  isObject,
};
