"use strict";

const { types } = require("node:util");

// The `bson` package stores a whole number outside int32 as a double, and rejects classes of its
// other major versions. The SDK does neither, so documents are encoded here: whole numbers as
// integers, and classes by their `_bsontype`.
//
// Applications pass on untrusted JSON values. Such a value must never control the bytes around
// it. Therefore, classes are only accepted from objects that JSON cannot create, each in its
// exact form. Bytes are only copied from real typed arrays, whose size comes from the language's
// own getter.

const TYPE = {
  double: 0x01,
  string: 0x02,
  document: 0x03,
  array: 0x04,
  binary: 0x05,
  undefined: 0x06,
  objectId: 0x07,
  boolean: 0x08,
  date: 0x09,
  null: 0x0a,
  regex: 0x0b,
  code: 0x0d,
  symbol: 0x0e,
  codeWithScope: 0x0f,
  int32: 0x10,
  timestamp: 0x11,
  int64: 0x12,
  decimal128: 0x13,
  minKey: 0xff,
  maxKey: 0x7f,
};

const MAX_DEPTH = 200;
const INT64_LIMIT = 2 ** 63;
/** The maximum length of bytes and ASCII texts that a loop copies faster than a call of Node. */
const SHORT = 32;
/** The maximum length of a field's path in an error message, in characters. */
const LONGEST_PATH = 200;

const INITIAL_SIZE = 16 * 1024;
/** The maximum size of a buffer that is kept for the next call, in bytes. */
const LARGEST_KEPT = 1024 * 1024;
/** The maximum size of a document in bytes. Its length is an int32. */
const LARGEST_DOCUMENT = 2 ** 31 - 1;

/** The options of regular expressions, in the order that BSON requires. */
const REGEX_OPTIONS = "imsux";

/** Marks the classes of `bson` 6 and later. JSON has no symbols. */
const VERSION = Symbol.for("@@mdb.bson.version");

/**
 * Returns a prototype's getter as a function, so that the object's own properties have no
 * effect.
 */
const getter = (prototype, name) => Function.prototype.call.bind(Object.getOwnPropertyDescriptor(prototype, name).get);

/** Returns a prototype's method in the same way. */
const method = (prototype, name) => Function.prototype.call.bind(prototype[name]);

const typedArray = Object.getPrototypeOf(Uint8Array.prototype);
const bufferOf = getter(typedArray, "buffer");
const offsetOf = getter(typedArray, "byteOffset");
const sizeOf = getter(typedArray, "byteLength");
const bufferOfView = getter(DataView.prototype, "buffer");
const offsetOfView = getter(DataView.prototype, "byteOffset");
const sizeOfView = getter(DataView.prototype, "byteLength");
const sourceOf = getter(RegExp.prototype, "source");
const flagsOf = getter(RegExp.prototype, "flags");
const timeOf = method(Date.prototype, "getTime");
const sourceTextOf = method(Function.prototype, "toString");

/** The buffer of the current call. A nested call has another one. */
let buffer = Buffer.allocUnsafe(INITIAL_SIZE);
let length = 0;
let isWriting = false;
/** True to keep fields and elements that are `undefined`. */
let keepsUndefined = false;

/**
 * A value that cannot be encoded. It becomes an `Error` when the path of its field is complete.
 */
class Rejection {
  /** The names of the enclosing fields, the innermost first. */
  names = [];

  constructor(subject, problem, ErrorClass = TypeError) {
    this.subject = subject;
    this.problem = problem;
    this.ErrorClass = ErrorClass;
  }

  toError() {
    // The outermost name is that of the argument, which the application does not know.
    const names = this.names.length > 1 ? this.names.slice(0, -1) : this.names;
    const path = names.reverse().join(".");
    const shown = path.length > LONGEST_PATH ? `${path.slice(0, LONGEST_PATH)}…` : path;
    return new this.ErrorClass(`${this.subject} at '${shown}' ${this.problem}`);
  }
}

/** Adds the name of a field to the path of an error. */
function within(name, error) {
  if (error instanceof Rejection) {
    error.names.push(name);
  }
  return error;
}

function reserve(size) {
  if (length + size > buffer.length) {
    grow(length + size);
  }
}

function grow(size) {
  if (size > LARGEST_DOCUMENT) {
    throw new RangeError(`the arguments must not be larger than ${LARGEST_DOCUMENT} bytes`);
  }
  const larger = Buffer.allocUnsafe(Math.min(Math.max(buffer.length * 2, size), LARGEST_DOCUMENT));
  buffer.copy(larger, 0, 0, length);
  // It can contain a password.
  buffer.fill(0, 0, length);
  buffer = larger;
}

function byte(value) {
  reserve(1);
  buffer[length++] = value;
}

/** Writes the lowest 32 bits of a whole number to a position. A buffer keeps the lowest 8 bits. */
function put32(value, position) {
  buffer[position] = value;
  buffer[position + 1] = value >>> 8;
  buffer[position + 2] = value >>> 16;
  buffer[position + 3] = value >>> 24;
}

function int32(value) {
  reserve(4);
  put32(value, length);
  length += 4;
}

/** Writes a whole number in the range of an int64. */
function int64(value) {
  int32(value);
  int32(Math.floor(value / 2 ** 32));
}

function double(value) {
  reserve(8);
  length = buffer.writeDoubleLE(value, length);
}

/** Writes all bytes of a real `Uint8Array` with a size of `size` bytes. */
function bytes(value, size) {
  reserve(size);
  if (size <= SHORT) {
    for (let index = 0; index < size; index++) {
      buffer[length + index] = value[index];
    }
  } else {
    buffer.set(value, length);
  }
  length += size;
}

/** Writes a text and a zero byte. The caller has reserved the space. */
function characters(value) {
  if (value.length <= SHORT) {
    let index = 0;
    for (; index < value.length; index++) {
      const code = value.charCodeAt(index);
      if (code > 0x7f) {
        break;
      }
      buffer[length + index] = code;
    }
    if (index === value.length) {
      length += index;
      buffer[length++] = 0;
      return;
    }
  }
  length += buffer.write(value, length, "utf8");
  buffer[length++] = 0;
}

function text(value) {
  reserve(5 + value.length * 3);
  const start = length;
  length += 4;
  characters(value);
  put32(length - start - 4, start);
}

function cstring(value, what) {
  if (value.includes("\0")) {
    throw new TypeError(`${what} ${JSON.stringify(value)} must not contain null bytes`);
  }
  reserve(1 + value.length * 3);
  const start = length;
  characters(value);
  // UTF-8 has no lone surrogates. All of them would become one character, so that different names
  // would be equal.
  if (length - start !== value.length + 1 && /\p{Surrogate}/u.test(value)) {
    throw new TypeError(`${what} ${JSON.stringify(value)} must not contain lone surrogates`);
  }
}

/** Writes the type and the name of an element. */
function head(type, name) {
  byte(type);
  cstring(name, "the key");
}

/** Starts a document or an array: reserves its length and returns the position. */
function begin() {
  const start = length;
  reserve(4);
  length += 4;
  return start;
}

/** Ends the document or array that started at `start`. */
function end(start) {
  byte(0);
  put32(length - start, start);
}

/** Writes a field, or omits it if it has no value. */
function writeField(name, field, depth) {
  if ((field !== undefined || keepsUndefined) && typeof field !== "function" && typeof field !== "symbol") {
    writeElement(name, field, depth);
  }
}

function writeDocument(value, depth) {
  if (depth > MAX_DEPTH) {
    throw new TypeError(`the document is nested more than ${MAX_DEPTH} levels deep, or contains itself`);
  }
  const start = begin();
  if (types.isMap(value)) {
    writeEntries(value, depth);
  } else {
    let name;
    try {
      for (name of Object.keys(value)) {
        writeField(name, value[name], depth);
      }
    } catch (error) {
      throw within(name, error);
    }
  }
  end(start);
}

/** Writes the entries of a map. Rejects different keys with the same name. */
function writeEntries(map, depth) {
  const names = new Set();
  for (const [key, field] of map) {
    const name = String(key);
    try {
      if (names.has(name)) {
        throw new Rejection("the name", "is used twice in one Map");
      }
      names.add(name);
      writeField(name, field, depth);
    } catch (error) {
      throw within(name, error);
    }
  }
}

function writeArray(value, depth) {
  if (depth > MAX_DEPTH) {
    throw new TypeError(`the array is nested more than ${MAX_DEPTH} levels deep, or contains itself`);
  }
  const start = begin();
  const count = value.length;
  let index = 0;
  try {
    for (; index < count; index++) {
      writeElement(String(index), value[index], depth);
    }
  } catch (error) {
    throw within(index, error);
  }
  end(start);
}

function writeNumber(name, value) {
  if (Number.isInteger(value) && !Object.is(value, -0)) {
    if (value === (value | 0)) {
      head(TYPE.int32, name);
      return int32(value);
    }
    if (value >= -INT64_LIMIT && value < INT64_LIMIT) {
      head(TYPE.int64, name);
      return int64(value);
    }
  }
  head(TYPE.double, name);
  double(value);
}

function writeBigInt(name, value) {
  if (BigInt.asIntN(64, value) !== value) {
    throw new Rejection(`${value}n`, "does not fit into a 64-bit integer", RangeError);
  }
  head(TYPE.int64, name);
  reserve(8);
  length = buffer.writeBigInt64LE(value, length);
}

/** Writes bytes of an array buffer. */
function writeBinary(name, arrayBuffer, offset, size, subtype) {
  head(TYPE.binary, name);
  // The old binary subtype repeats the length.
  int32(subtype === 2 ? size + 4 : size);
  byte(subtype);
  if (subtype === 2) {
    int32(size);
  }
  bytes(new Uint8Array(arrayBuffer, offset, size), size);
}

function writeElement(name, value, depth) {
  switch (typeof value) {
    case "string":
      head(TYPE.string, name);
      return text(value);
    case "number":
      return writeNumber(name, value);
    case "boolean":
      head(TYPE.boolean, name);
      return byte(value ? 1 : 0);
    case "bigint":
      return writeBigInt(name, value);
    case "object":
      return value === null ? head(TYPE.null, name) : writeObject(name, value, depth);
    default:
      // An item of an array without a value keeps its position.
      return head(keepsUndefined && value === undefined ? TYPE.undefined : TYPE.null, name);
  }
}

function writeObject(name, value, depth, isConverted = false) {
  if (Array.isArray(value)) {
    head(TYPE.array, name);
    return writeArray(value, depth + 1);
  }
  const type = value._bsontype;
  if (typeof type === "string" && isOfClass(value)) {
    return writeClass(name, value, type, depth);
  }
  const { toBSON } = value;
  if (typeof toBSON === "function" && !isConverted) {
    return writeConverted(name, toBSON.call(value), depth);
  }
  if (types.isDate(value)) {
    const time = timeOf(value);
    if (Number.isNaN(time)) {
      throw new Rejection("the date", "is invalid");
    }
    head(TYPE.date, name);
    return int64(time);
  }
  if (types.isRegExp(value)) {
    head(TYPE.regex, name);
    cstring(sourceOf(value), "the pattern");
    return cstring(regexOptions(flagsOf(value)), "the options");
  }
  if (types.isAnyArrayBuffer(value)) {
    const whole = new Uint8Array(value);
    return writeBinary(name, value, 0, whole.byteLength, 0);
  }
  if (types.isTypedArray(value)) {
    return writeBinary(name, bufferOf(value), offsetOf(value), sizeOf(value), 0);
  }
  if (types.isDataView(value)) {
    return writeBinary(name, bufferOfView(value), offsetOfView(value), sizeOfView(value), 0);
  }
  if (types.isBoxedPrimitive(value)) {
    return writeElement(name, unboxed(value), depth);
  }
  head(TYPE.document, name);
  writeDocument(value, depth + 1);
}

/** Writes a result of `toBSON`. It is not converted again, because it can be the object itself. */
function writeConverted(name, value, depth) {
  if (typeof value === "object" && value !== null) {
    return writeObject(name, value, depth, true);
  }
  return writeElement(name, value, depth);
}

function unboxed(value) {
  if (types.isNumberObject(value)) {
    return Number.prototype.valueOf.call(value);
  }
  if (types.isStringObject(value)) {
    return String.prototype.valueOf.call(value);
  }
  if (types.isBooleanObject(value)) {
    return Boolean.prototype.valueOf.call(value);
  }
  return types.isBigIntObject(value) ? BigInt.prototype.valueOf.call(value) : undefined;
}

/** Returns the options that BSON has, in its order. */
const regexOptions = (flags) => [...REGEX_OPTIONS].filter((option) => flags.includes(option)).join("");

/**
 * Returns true if an object with a string as its `_bsontype` is of a class of `bson`, and false if
 * it may be a JSON value.
 *
 * The classes have the property on their prototypes, or it is not enumerable. An enumerable one
 * in an object of another class is rejected: it can come from JSON that was assigned to the
 * object, or from a version of `bson` that is too old.
 */
function isOfClass(value) {
  if (value[VERSION] !== undefined) {
    return true;
  }
  if (isPlain(value)) {
    return false;
  }
  let holder = value;
  while (holder !== null && !Object.hasOwn(holder, "_bsontype")) {
    holder = Object.getPrototypeOf(holder);
  }
  if (holder === null || Object.prototype.propertyIsEnumerable.call(holder, "_bsontype")) {
    throw new Rejection("the value", "is of a class and has '_bsontype' as a field, which only plain objects may have");
  }
  return true;
}

/**
 * Returns true for objects that JSON can create, in any context, and for those without a
 * prototype.
 */
function isPlain(value) {
  const prototype = Object.getPrototypeOf(value);
  if (prototype === null || prototype === Object.prototype) {
    return true;
  }
  return Object.getPrototypeOf(prototype) === null && prototype.constructor?.name === "Object";
}

/** Rejects a value of a class of `bson` that does not have the form of the class. */
function check(holds, type, requirement) {
  if (!holds) {
    throw new Rejection(`the ${type}`, requirement);
  }
}

/** Returns true for half of a 64-bit integer, with or without a sign. */
const isHalf = (value) => Number.isInteger(value) && value >= -(2 ** 31) && value < 2 ** 32;

const isBytes = (value, size) => types.isUint8Array(value) && sizeOf(value) === size;

/** Returns the bytes of an id from its hexadecimal digits. */
function hexadecimal(value, type, size) {
  const digits = typeof value.toHexString === "function" ? value.toHexString(false) : undefined;
  const isRight = typeof digits === "string" && digits.length === size * 2 && /^[0-9a-f]*$/i.test(digits);
  check(isRight, type, `must have ${size} bytes`);
  return Buffer.from(digits, "hex");
}

/** Returns the bytes of an `ObjectId`. Some versions have them; all have hexadecimal digits. */
function objectIdBytes(value) {
  const { id } = value;
  return isBytes(id, 12) ? id : hexadecimal(value, "ObjectId", 12);
}

/** Writes a value of a class of `bson`, using only properties that all versions share. */
function writeClass(name, value, type, depth) {
  switch (type) {
    case "ObjectId":
    case "ObjectID":
      head(TYPE.objectId, name);
      return bytes(objectIdBytes(value), 12);
    case "Decimal128":
      return writeDecimal(name, value);
    case "Long":
      head(TYPE.int64, name);
      return writeHalves(value, type);
    case "Timestamp":
      head(TYPE.timestamp, name);
      return writeHalves(value, type);
    case "Int32":
      return writeInt32(name, value);
    case "Double":
      return writeDouble(name, value);
    case "UUID": {
      const id = hexadecimal(value, type, 16);
      return writeBinary(name, id.buffer, id.byteOffset, 16, 4);
    }
    case "Binary":
      return writeBinaryClass(name, value);
    case "BSONRegExp":
      return writeRegex(name, value);
    case "BSONSymbol":
    case "Symbol":
      return writeSymbol(name, value);
    case "Code":
      return writeCode(name, value, depth);
    case "DBRef":
      return writeReference(name, value, depth);
    case "MinKey":
      return head(TYPE.minKey, name);
    case "MaxKey":
      return head(TYPE.maxKey, name);
    default:
      throw new Rejection("the value", `has the unknown BSON type '${type}'`);
  }
}

function writeDecimal(name, value) {
  const decimal = value.bytes;
  check(isBytes(decimal, 16), "Decimal128", "must have 16 bytes");
  head(TYPE.decimal128, name);
  bytes(decimal, 16);
}

/** Writes both halves of a `Long` or a `Timestamp`. */
function writeHalves(value, type) {
  const { low, high } = value;
  check(isHalf(low) && isHalf(high), type, "must have whole numbers of 32 bits as 'low' and 'high'");
  int32(low);
  int32(high);
}

function writeInt32(name, value) {
  const number = value.valueOf();
  check(typeof number === "number" && number === (number | 0), "Int32", "must be a whole number of 32 bits");
  head(TYPE.int32, name);
  int32(number);
}

function writeDouble(name, value) {
  const number = value.valueOf();
  check(typeof number === "number", "Double", "must be a number");
  head(TYPE.double, name);
  double(number);
}

function writeBinaryClass(name, value) {
  const { buffer: held, position, sub_type: subtype } = value;
  check(types.isUint8Array(held), "Binary", "must have a Uint8Array as 'buffer'");
  const fits = Number.isInteger(position) && position >= 0 && position <= sizeOf(held);
  check(fits, "Binary", "must have a 'position' within its 'buffer'");
  const isSubtype = Number.isInteger(subtype) && subtype >= 0 && subtype <= 0xff;
  check(isSubtype, "Binary", "must have a whole number from 0 to 255 as 'sub_type'");
  writeBinary(name, bufferOf(held), offsetOf(held), position, subtype);
}

function writeRegex(name, value) {
  const { pattern, options } = value;
  const areTexts = typeof pattern === "string" && typeof options === "string";
  check(areTexts, "BSONRegExp", "must have texts as 'pattern' and 'options'");
  const isKnown = [...options].every((option) => REGEX_OPTIONS.includes(option));
  check(isKnown, "BSONRegExp", `must have no options other than '${REGEX_OPTIONS}'`);
  head(TYPE.regex, name);
  cstring(pattern, "the pattern");
  cstring(regexOptions(options), "the options");
}

function writeSymbol(name, value) {
  const symbol = value.valueOf();
  check(typeof symbol === "string", "BSONSymbol", "must be a text");
  head(TYPE.symbol, name);
  text(symbol);
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function writeCode(name, value, depth) {
  const { code, scope } = value;
  check(typeof code === "string" || typeof code === "function", "Code", "must have a text or a function as 'code'");
  const source = typeof code === "string" ? code : sourceTextOf(code);
  if (!scope) {
    head(TYPE.code, name);
    return text(source);
  }
  check(isObject(scope), "Code", "must have a document as 'scope'");
  head(TYPE.codeWithScope, name);
  const start = begin();
  text(source);
  writeDocument(scope, depth + 1);
  put32(length - start, start);
}

function writeReference(name, value, depth) {
  const { collection, oid, db, fields } = value;
  check(typeof collection === "string", "DBRef", "must have a text as 'collection'");
  check(oid !== undefined, "DBRef", "must have an 'oid'");
  check(typeof (db ?? "") === "string", "DBRef", "must have a text as 'db', or none");
  check(isObject(fields ?? {}), "DBRef", "must have a document as 'fields', or none");
  const others = { ...fields };
  for (const reserved of ["$ref", "$id", "$db"]) {
    check(!Object.hasOwn(others, reserved), "DBRef", `must not have '${reserved}' among its 'fields'`);
  }
  head(TYPE.document, name);
  writeDocument({ $ref: collection, $id: oid, ...(db && { $db: db }), ...others }, depth + 1);
}

/** Clears the buffer after a failure, and returns the error for the caller. */
function failed(error) {
  buffer.fill(0, 0, length);
  return error instanceof Rejection ? error.toError() : error;
}

/** Encodes a document during another call, from a getter or `toBSON`. */
function encodeNested(document) {
  const outerBuffer = buffer;
  const outerLength = length;
  buffer = Buffer.allocUnsafe(INITIAL_SIZE);
  length = 0;
  try {
    writeDocument(document, 1);
    return buffer.subarray(0, length);
  } catch (error) {
    throw failed(error);
  } finally {
    buffer = outerBuffer;
    length = outerLength;
  }
}

/**
 * Encodes a document as BSON. The result is valid until the next call that is not nested.
 *
 * Fields without a value are omitted, and items without a value are null. Whole numbers are
 * stored as int32 or int64. Classes of any version of `bson` from 4 on are accepted.
 *
 * @throws TypeError with the path of the field if a value cannot be stored
 */
function encode(document) {
  if (isWriting) {
    return encodeNested(document);
  }
  isWriting = true;
  length = 0;
  try {
    writeDocument(document, 1);
  } catch (error) {
    throw failed(error);
  } finally {
    isWriting = false;
  }
  const written = buffer.subarray(0, length);
  if (buffer.length > LARGEST_KEPT) {
    buffer = Buffer.allocUnsafe(INITIAL_SIZE);
  }
  return written;
}

/**
 * Encodes a document as `encode` does, but keeps `undefined`, which a function can return.
 *
 * @throws TypeError with the path of the field if a value cannot be stored
 */
function encodeWithUndefined(document) {
  const before = keepsUndefined;
  keepsUndefined = true;
  try {
    return encode(document);
  } finally {
    keepsUndefined = before;
  }
}

module.exports = { encode, encodeWithUndefined };
