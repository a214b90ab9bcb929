"use strict";

const { types } = require("node:util");

// The `bson` package stores a whole number outside int32 as a double and refuses classes of its other major versions.
// The SDK did neither, so documents are written here: whole numbers as integers, and classes by their `_bsontype`.

const TYPE = {
  double: 0x01,
  string: 0x02,
  document: 0x03,
  array: 0x04,
  binary: 0x05,
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
/** Bytes, and texts of ASCII, up to this length are copied here: a call of Node's own takes longer than that. */
const SHORT = 32;

let buffer = Buffer.allocUnsafe(16 * 1024);
let length = 0;

function reserve(size) {
  if (length + size > buffer.length) {
    const larger = Buffer.allocUnsafe(Math.max(buffer.length * 2, length + size));
    buffer.copy(larger, 0, 0, length);
    buffer = larger;
  }
}

function byte(value) {
  reserve(1);
  buffer[length++] = value;
}

/** Puts the lowest 32 bits of a whole number somewhere; an element of a buffer takes the lowest eight of what it is given. */
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

/** Writes a whole number of the range of an int64. */
function int64(value) {
  int32(value);
  int32(Math.floor(value / 2 ** 32));
}

function double(value) {
  reserve(8);
  length = buffer.writeDoubleLE(value, length);
}

function bytes(value) {
  reserve(value.length);
  if (value.length <= SHORT) {
    for (let index = 0; index < value.length; index++) {
      buffer[length + index] = value[index];
    }
  } else {
    buffer.set(value, length);
  }
  length += value.length;
}

/** Writes a text and a zero after it. There is room for it. */
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
  characters(value);
}

/** Writes the type and the name of an element. */
function head(type, name) {
  byte(type);
  cstring(name, "the key");
}

/** Makes room for the length of what begins here; where that is. */
function begin() {
  const start = length;
  reserve(4);
  length += 4;
  return start;
}

/** Ends what began at `start`. */
function end(start) {
  byte(0);
  put32(length - start, start);
}

/** Writes a field, which is left out where it has no value, as if it had not been written. */
function writeField(name, field, depth) {
  if (field !== undefined && typeof field !== "function" && typeof field !== "symbol") {
    writeElement(name, field, depth);
  }
}

function writeDocument(value, depth) {
  if (depth > MAX_DEPTH) {
    throw new TypeError(`the document is nested more than ${MAX_DEPTH} levels deep, or contains itself`);
  }
  const start = begin();
  if (types.isMap(value)) {
    for (const [name, field] of value) {
      writeField(String(name), field, depth);
    }
  } else {
    for (const name of Object.keys(value)) {
      writeField(name, value[name], depth);
    }
  }
  end(start);
}

function writeArray(value, depth) {
  if (depth > MAX_DEPTH) {
    throw new TypeError(`the array is nested more than ${MAX_DEPTH} levels deep, or contains itself`);
  }
  const start = begin();
  for (let index = 0; index < value.length; index++) {
    writeElement(String(index), value[index], depth);
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
    throw new RangeError(`${value}n at '${name}' does not fit into a 64-bit integer`);
  }
  head(TYPE.int64, name);
  reserve(8);
  length = buffer.writeBigInt64LE(value, length);
}

function writeBinary(name, value, subtype) {
  head(TYPE.binary, name);
  // The old binary subtype repeats the length.
  int32(subtype === 2 ? value.length + 4 : value.length);
  byte(subtype);
  if (subtype === 2) {
    int32(value.length);
  }
  bytes(value);
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
      // An item of an array that has no value keeps its place.
      return head(TYPE.null, name);
  }
}

function writeObject(name, value, depth) {
  if (Array.isArray(value)) {
    head(TYPE.array, name);
    return writeArray(value, depth + 1);
  }
  if (typeof value._bsontype === "string") {
    return writeClass(name, value, depth);
  }
  if (typeof value.toBSON === "function") {
    return writeElement(name, value.toBSON(), depth);
  }
  if (types.isDate(value)) {
    const time = value.getTime();
    if (Number.isNaN(time)) {
      throw new TypeError(`the date at '${name}' is invalid`);
    }
    head(TYPE.date, name);
    return int64(time);
  }
  if (types.isRegExp(value)) {
    head(TYPE.regex, name);
    cstring(value.source, "the pattern");
    return cstring([...value.flags].filter((flag) => "imsu".includes(flag)).join(""), "the options");
  }
  if (types.isAnyArrayBuffer(value)) {
    return writeBinary(name, new Uint8Array(value), 0);
  }
  if (ArrayBuffer.isView(value)) {
    return writeBinary(name, new Uint8Array(value.buffer, value.byteOffset, value.byteLength), 0);
  }
  if (types.isBoxedPrimitive(value)) {
    return writeElement(name, value.valueOf(), depth);
  }
  head(TYPE.document, name);
  writeDocument(value, depth + 1);
}

/** The bytes of an `ObjectId`: some versions hold them, all can write them down. */
function objectIdBytes(value) {
  const { id } = value;
  return ArrayBuffer.isView(id) && id.length === 12 ? id : Buffer.from(value.toHexString(), "hex");
}

/** Values of the classes of `bson`, whichever its version: what is read here has been the same in all of them. */
function writeClass(name, value, depth) {
  switch (value._bsontype) {
    case "ObjectId":
    case "ObjectID":
      head(TYPE.objectId, name);
      return bytes(objectIdBytes(value));
    case "Decimal128":
      head(TYPE.decimal128, name);
      return bytes(value.bytes);
    case "Long":
      head(TYPE.int64, name);
      int32(value.low);
      return int32(value.high);
    case "Timestamp":
      head(TYPE.timestamp, name);
      int32(value.low);
      return int32(value.high);
    case "Int32":
      head(TYPE.int32, name);
      return int32(value.valueOf() | 0);
    case "Double":
      head(TYPE.double, name);
      return double(value.valueOf());
    case "UUID":
      return writeBinary(name, Buffer.from(value.toHexString(false), "hex"), 4);
    case "Binary":
      return writeBinary(name, value.buffer.subarray(0, value.position), value.sub_type);
    case "BSONRegExp":
      head(TYPE.regex, name);
      cstring(value.pattern, "the pattern");
      return cstring(value.options, "the options");
    case "BSONSymbol":
    case "Symbol":
      head(TYPE.symbol, name);
      return text(value.valueOf());
    case "Code":
      return writeCode(name, value, depth);
    case "DBRef":
      head(TYPE.document, name);
      return writeDocument(
        { $ref: value.collection, $id: value.oid, $db: value.db || undefined, ...value.fields },
        depth + 1,
      );
    case "MinKey":
      return head(TYPE.minKey, name);
    case "MaxKey":
      return head(TYPE.maxKey, name);
    default:
      throw new TypeError(`the value at '${name}' has the unknown BSON type '${value._bsontype}'`);
  }
}

function writeCode(name, value, depth) {
  if (!value.scope) {
    head(TYPE.code, name);
    return text(String(value.code));
  }
  head(TYPE.codeWithScope, name);
  const start = begin();
  text(String(value.code));
  writeDocument(value.scope, depth + 1);
  put32(length - start, start);
}

/**
 * The BSON of a document, valid until the next call.
 *
 * Fields without a value are left out, items without one are null; whole numbers are stored as int32 or int64; classes
 * of any version of `bson` are accepted.
 */
function encode(document) {
  length = 0;
  writeDocument(document, 1);
  return buffer.subarray(0, length);
}

module.exports = { encode };
