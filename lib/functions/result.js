"use strict";

const { types } = require("node:util");
const { Cursor } = require("./cursor.js");

/** The depth to which promises and cursors are found. Documents are not nested deeper. */
const MAX_DEPTH = 200;

/** Returns true for values that cannot contain promises: those of BSON, dates and bytes. */
const isOpaque = (value) =>
  value._bsontype !== undefined || types.isDate(value) || types.isRegExp(value) || ArrayBuffer.isView(value);

const isPending = (value) => value instanceof Cursor || types.isPromise(value) || typeof value.then === "function";

/** Returns true if a value contains a promise or a cursor. */
function containsPending(value, depth, seen) {
  if (typeof value !== "object" || value === null || depth > MAX_DEPTH || seen.has(value) || isOpaque(value)) {
    return false;
  }
  if (isPending(value)) {
    return true;
  }
  seen.add(value);
  const items = Array.isArray(value) ? value : types.isMap(value) ? [...value.values()] : Object.values(value);
  return items.some((item) => containsPending(item, depth + 1, seen));
}

async function settled(value, call, depth) {
  if (typeof value !== "object" || value === null || depth > MAX_DEPTH || isOpaque(value)) {
    return value;
  }
  if (value instanceof Cursor) {
    return settled(await value.toArray(), call, depth);
  }
  if (isPending(value)) {
    const result = await value;
    return call.isCount(value) ? call.toLong(result) : settled(result, call, depth);
  }
  if (Array.isArray(value)) {
    return Promise.all(value.map((item) => settled(item, call, depth + 1)));
  }
  // A map is encoded as the document of its entries.
  const entries = types.isMap(value) ? [...value] : Object.entries(value);
  const fields = entries.map(async ([name, field]) => [name, await settled(field, call, depth + 1)]);
  return Object.fromEntries(await Promise.all(fields));
}

/**
 * Waits for the promises in a function's result and reads its cursors. A result without any is
 * returned as it is.
 */
async function settle(value, call) {
  return containsPending(value, 0, new Set()) ? settled(value, call, 0) : value;
}

module.exports = { settle };
