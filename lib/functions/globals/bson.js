"use strict";

const bson = require("bson");
const { toBinary } = require("./binary.js");
const { invalidParameter } = require("./errors.js");

const CLASSES = [
  "Binary",
  "BSONRegExp",
  "BSONSymbol",
  "Code",
  "DBRef",
  "Decimal128",
  "Double",
  "Int32",
  "Long",
  "MaxKey",
  "MinKey",
  "ObjectId",
  "Timestamp",
  "UUID",
];

function long(low = 0, high = undefined, unsigned = undefined) {
  if (typeof low === "number" && typeof high !== "number") {
    return bson.Long.fromNumber(low, high === true);
  }
  return typeof low === "object" ? bson.Long.fromValue(low) : new bson.Long(low, high, unsigned);
}

function timestamp(low = 0, high = 0) {
  return typeof low === "number" ? bson.Timestamp.fromBits(low, high) : new bson.Timestamp(low);
}

/** The constructors that accept more than the package's. */
const CREATORS = {
  BSONRegExp: (pattern = "", options = "") => new bson.BSONRegExp(pattern, options),
  Decimal128: (value = "0") => new bson.Decimal128(typeof value === "number" ? String(value) : value),
  Double: (value = 0) => new bson.Double(value),
  Int32: (value = 0) => new bson.Int32(value),
  Long: long,
  Timestamp: timestamp,
};

function text(value, method) {
  if (typeof value !== "string") {
    throw invalidParameter(`BSON.Binary.${method}: the argument must be a string`);
  }
  return value;
}

function fromHex(digits, subType = 0) {
  if (text(digits, "fromHex").length % 2 !== 0 || !/^[0-9a-f]*$/i.test(digits)) {
    throw invalidParameter("BSON.Binary.fromHex: the argument must have an even number of hexadecimal digits");
  }
  return toBinary(Buffer.from(digits, "hex"), subType);
}

function fromBase64(encoded, subType = 0) {
  if (text(encoded, "fromBase64").length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(encoded)) {
    throw invalidParameter("BSON.Binary.fromBase64: the argument must be base64 with padding");
  }
  return toBinary(Buffer.from(encoded, "base64"), subType);
}

const fromText = (value, subType = 0) => toBinary(Buffer.from(text(value, "fromText"), "utf8"), subType);

/**
 * The static members that the package's classes do not have. Functions write `MinKey` and
 * `MaxKey` without calling them, so these classes are recognised as values.
 */
const STATICS = {
  Binary: { fromHex, fromBase64, fromText },
  MinKey: { _bsontype: "MinKey" },
  MaxKey: { _bsontype: "MaxKey" },
};

/**
 * Makes a class of the package callable without `new`. It cannot be changed, because the next
 * call of a function uses it too.
 */
function callable(Class, create = (...args) => new Class(...args), statics = {}) {
  const proxy = new Proxy(Class, {
    apply: (_target, _this, args) => create(...args),
    construct: (target, args, newTarget) =>
      newTarget === proxy ? create(...args) : Reflect.construct(target, args, newTarget),
    get: (target, key) => (Object.hasOwn(statics, key) ? statics[key] : Reflect.get(target, key)),
    has: (target, key) => Object.hasOwn(statics, key) || Reflect.has(target, key),
    set: () => false,
    defineProperty: () => false,
    deleteProperty: () => false,
    setPrototypeOf: () => false,
    preventExtensions: () => false,
  });
  return proxy;
}

/** Creates the global `BSON` of functions from the classes of the `bson` package. */
function makeBson() {
  const BSON = {};
  for (const name of CLASSES) {
    BSON[name] = callable(bson[name], CREATORS[name], STATICS[name]);
  }
  BSON.ObjectID = BSON.ObjectId;
  return Object.freeze(BSON);
}

/** Returns the value that a bare `BSON.MinKey` or `BSON.MaxKey` stands for, else undefined. */
function bareKey(value) {
  const type = typeof value === "function" ? value._bsontype : undefined;
  return type === "MinKey" || type === "MaxKey" ? new bson[type]() : undefined;
}

module.exports = { bareKey, makeBson };
