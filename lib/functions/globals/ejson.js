"use strict";

const { toExtendedJson } = require("./extended.js");
const { invalidParameter } = require("./errors.js");

const INT32_LIMIT = 2 ** 31;
const INT64_LIMIT = 2n ** 63n;
const NOT_FINITE = ["NaN", "Infinity", "-Infinity"];

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function expect(holds, key) {
  if (!holds) {
    throw invalidParameter(`the value of '${key}' is not valid Extended JSON`);
  }
}

function matching(value, pattern, key) {
  expect(typeof value === "string" && pattern.test(value), key);
  return value;
}

function int32(text) {
  const value = Number(matching(text, /^[+-]?\d{1,20}$/, "$numberInt"));
  expect(value >= -INT32_LIMIT && value < INT32_LIMIT, "$numberInt");
  return value;
}

function double(text) {
  const pattern = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
  return NOT_FINITE.includes(text) ? Number(text) : Number(matching(text, pattern, "$numberDouble"));
}

function int64(text, Long) {
  const value = BigInt(matching(text, /^-?\d{1,20}$/, "$numberLong"));
  expect(value >= -INT64_LIMIT && value < INT64_LIMIT, "$numberLong");
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : Long.fromBigInt(value);
}

/** Reads `$date`: milliseconds, or a text that `Date` understands. */
function date(value) {
  const isLong = isObject(value) && Object.keys(value).length === 1 && typeof value.$numberLong === "string";
  const result = new Date(isLong ? Number(matching(value.$numberLong, /^-?\d{1,20}$/, "$date")) : value);
  expect((isLong || ["string", "number"].includes(typeof value)) && !Number.isNaN(result.getTime()), "$date");
  return result;
}

function regex(value, BSONRegExp) {
  const { pattern, options = "" } = isObject(value) ? value : {};
  expect(typeof pattern === "string" && typeof options === "string", "$regularExpression");
  return new BSONRegExp(pattern, options);
}

function binary(value, BSON) {
  const { base64, subType } = isObject(value) ? value : {};
  expect(typeof base64 === "string", "$binary");
  const type = Number.parseInt(matching(subType, /^[0-9a-f]{1,2}$/i, "$binary"), 16);
  const result = BSON.Binary.fromBase64(base64, type);
  return type === 4 && result.length() === 16 ? result.toUUID() : result;
}

function timestamp(value, Timestamp) {
  const { t, i } = isObject(value) ? value : {};
  const areHalves = [t, i].every((half) => Number.isInteger(half) && half >= 0 && half < 2 ** 32);
  expect(areHalves, "$timestamp");
  return new Timestamp({ t, i });
}

/** Readers of the values of types, by the only key of their objects. */
const readersFor = (BSON) => ({
  $oid: (value) => new BSON.ObjectId(matching(value, /^[0-9a-f]{24}$/i, "$oid")),
  $numberInt: int32,
  $numberDouble: double,
  $numberLong: (value) => int64(value, BSON.Long),
  $numberDecimal: (value) => BSON.Decimal128.fromString(matching(value, /^.{1,100}$/, "$numberDecimal")),
  $date: date,
  $binary: (value) => binary(value, BSON),
  $uuid: (value) => new BSON.UUID(matching(value, /^[0-9a-f-]{32,36}$/i, "$uuid")),
  $regularExpression: (value) => regex(value, BSON.BSONRegExp),
  $timestamp: (value) => timestamp(value, BSON.Timestamp),
  $symbol: (value) => new BSON.BSONSymbol(matching(value, /^/, "$symbol")),
  $code: (value) => new BSON.Code(matching(value, /^/, "$code")),
  $minKey: () => new BSON.MinKey(),
  $maxKey: () => new BSON.MaxKey(),
  $undefined: () => undefined,
});

/** Returns true for the fields of a `DBRef`, as documents of the store are read. */
function isReference(fields) {
  const { $ref, $id, $db } = fields;
  const isNamed = typeof $ref === "string" && $id !== undefined && $id !== null;
  return isNamed && (!Object.hasOwn(fields, "$db") || typeof $db === "string");
}

/** Creates the function that replaces the Extended JSON in parsed JSON. */
function makeReviver(BSON) {
  const readers = readersFor(BSON);

  function revive(value) {
    if (typeof value !== "object" || value === null) {
      return value;
    }
    const keys = Object.keys(value);
    if (keys.length === 1 && Object.hasOwn(readers, keys[0]) && !Array.isArray(value)) {
      return readers[keys[0]](value[keys[0]]);
    }
    for (const key of keys) {
      value[key] = revive(value[key]);
    }
    if (keys.length === 2 && typeof value.$code === "string" && isObject(value.$scope)) {
      return new BSON.Code(value.$code, value.$scope);
    }
    if (isReference(value)) {
      const { $ref, $id, $db, ...others } = value;
      return new BSON.DBRef($ref, $id, $db, others);
    }
    return value;
  }
  return revive;
}

/**
 * Creates the global `EJSON` of functions. It writes canonical Extended JSON, and reads plain
 * JSON too. Integers and doubles become numbers, integers beyond 2^53 a `Long`.
 */
function makeEjson(BSON) {
  const revive = makeReviver(BSON);
  return Object.freeze({
    parse: (text) => revive(JSON.parse(text)),
    stringify: (value, replacer, space) => JSON.stringify(toExtendedJson(value), replacer, space),
  });
}

module.exports = { makeEjson };
