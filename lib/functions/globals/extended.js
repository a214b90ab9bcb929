"use strict";

const { types } = require("node:util");
const { BSONRegExp, Double } = require("bson");
const { bytesOf, isBinary } = require("./binary.js");
const { bareKey } = require("./bson.js");
const { invalidParameter } = require("./errors.js");

const INT64_LIMIT = 2n ** 63n;
/** The options of regular expressions in BSON. */
const REGEX_OPTIONS = "imsux";

/** Converts values to Extended JSON: canonical, or with plain JSON numbers. */
class Converter {
  /** The objects that contain the current one. */
  #ancestors = new Set();
  #isPlain;

  constructor(isPlain) {
    this.#isPlain = isPlain;
  }

  convert(value) {
    switch (typeof value) {
      case "number":
        return this.#number(value);
      case "bigint":
        return this.#bigint(value);
      case "undefined":
        return this.#isPlain ? undefined : { $undefined: true };
      case "function": {
        const key = bareKey(value);
        return key && this.convert(key);
      }
      case "object":
        return value === null ? null : this.#nested(value);
      default:
        return value;
    }
  }

  #number(value) {
    if (this.#isPlain && Number.isFinite(value)) {
      return value;
    }
    const isInt32 = value === (value | 0) && !Object.is(value, -0);
    return isInt32 ? { $numberInt: String(value) } : new Double(value).toExtendedJSON({});
  }

  #bigint(value) {
    if (value < -INT64_LIMIT || value >= INT64_LIMIT) {
      throw invalidParameter(`${value}n does not fit into a 64-bit integer`);
    }
    const isNumber = this.#isPlain && Number.isSafeInteger(Number(value));
    return isNumber ? Number(value) : { $numberLong: String(value) };
  }

  #nested(value) {
    if (this.#ancestors.has(value)) {
      throw invalidParameter("a value that contains itself cannot be converted to Extended JSON");
    }
    this.#ancestors.add(value);
    try {
      return this.#object(value);
    } finally {
      this.#ancestors.delete(value);
    }
  }

  #object(value) {
    if (Array.isArray(value)) {
      return Array.from(value, (item) => this.convert(item));
    }
    // JSON has no functions, so JSON with a field `_bsontype` stays a document.
    if (typeof value._bsontype === "string" && typeof value.toExtendedJSON === "function") {
      return this.#class(value);
    }
    const converted = this.#builtIn(value);
    if (converted !== undefined) {
      return converted;
    }
    for (const name of ["toBSON", "toJSON"]) {
      if (typeof value[name] === "function") {
        return this.convert(value[name]());
      }
    }
    return this.#document(types.isMap(value) ? value : Object.entries(value));
  }

  /** Converts an instance of one of the language's own classes. */
  #builtIn(value) {
    if (types.isDate(value)) {
      const time = value.getTime();
      if (Number.isNaN(time)) {
        throw invalidParameter("an invalid date cannot be converted to Extended JSON");
      }
      return { $date: { $numberLong: String(time) } };
    }
    if (types.isRegExp(value)) {
      const options = [...REGEX_OPTIONS].filter((option) => value.flags.includes(option)).join("");
      return new BSONRegExp(value.source, options).toExtendedJSON({});
    }
    if (types.isBoxedPrimitive(value)) {
      return this.convert(value.valueOf());
    }
    const bytes = bytesOf(value);
    return bytes && binary(bytes, 0);
  }

  #class(value) {
    if (isBinary(value)) {
      return binary(bytesOf(value), value.sub_type);
    }
    switch (value._bsontype) {
      case "Int32":
      case "Double":
        return this.#isPlain ? this.#number(Number(value)) : value.toExtendedJSON({});
      case "Long":
        return this.#isPlain ? this.#bigint(value.toBigInt()) : value.toExtendedJSON({ relaxed: false });
      case "Code":
        return value.scope ? { $code: value.code, $scope: this.convert(value.scope) } : { $code: value.code };
      case "DBRef":
        return this.#reference(value);
      default:
        return value.toExtendedJSON({});
    }
  }

  #reference({ collection, oid, db, fields }) {
    const entries = [["$ref", collection], ["$id", oid], ...(db ? [["$db", db]] : []), ...Object.entries(fields ?? {})];
    return this.#document(entries);
  }

  #document(entries) {
    // Without a prototype, '__proto__' is a field like the others.
    const fields = Object.create(null);
    for (const [name, value] of entries) {
      fields[String(name)] = this.convert(value);
    }
    return fields;
  }
}

const binary = (bytes, subType) => ({
  $binary: { base64: bytes.toString("base64"), subType: subType.toString(16).padStart(2, "0") },
});

/** Converts a value to canonical Extended JSON: objects for `JSON.stringify`. */
const toExtendedJson = (value) => new Converter(false).convert(value);

/**
 * Converts a value for other services: numbers are plain JSON, fields without a value are
 * omitted, and types that JSON does not have are canonical Extended JSON.
 */
const toPlainJson = (value) => new Converter(true).convert(value);

/** Returns a value as the text of a form's field or of a query parameter. */
function textOf(value) {
  if (value === undefined || value === null) {
    return "";
  }
  if (types.isDate(value)) {
    return value.toISOString();
  }
  const isDocument = typeof value === "object" && typeof value._bsontype !== "string";
  return isDocument ? JSON.stringify(toPlainJson(value)) : String(value);
}

module.exports = { textOf, toExtendedJson, toPlainJson };
