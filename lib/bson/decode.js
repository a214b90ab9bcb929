"use strict";

const {
  Binary,
  BSONRegExp,
  BSONSymbol,
  Code,
  DBRef,
  Decimal128,
  Long,
  MaxKey,
  MinKey,
  ObjectId,
  Timestamp,
  UUID,
} = require("bson");
const { nameAt, root } = require("./key-cache.js");
const { textBetween } = require("./ascii.js");

// Decodes documents to the values of the SDK, in one pass over the buffer. This is half of the
// main thread's work for a query.
//
// The addon validates the structure of a document, but not every value: another program may have
// stored values that the classes of `bson` reject. Such a value does not make a document
// unreadable. Every length is checked against the end of the document.

const UUID_SUBTYPE = 4;
const OLD_BINARY_SUBTYPE = 2;
/** The maximum length of bytes that are copied in a loop, in bytes. */
const FEW = 24;

/** The options of regular expressions that the class accepts. */
const REGEX_OPTIONS = /^[ilmsux]*$/;

const NOTHING = Buffer.alloc(0);

let buffer = NOTHING;
/** The value that stands for BSON's `undefined`. */
let noValue;
let position = 0;
let limit = 0;
/** The name of the current field. */
let field = root;

function outside(size) {
  throw new RangeError(`a value of ${size} bytes at ${position} is not within its document`);
}

function cstring() {
  const end = buffer.indexOf(0, position);
  if (end < 0) {
    throw new RangeError(`the text at ${position} does not end`);
  }
  const value = textBetween(buffer, position, end);
  position = end + 1;
  return value;
}

function int32() {
  const value =
    buffer[position] | (buffer[position + 1] << 8) | (buffer[position + 2] << 16) | (buffer[position + 3] << 24);
  position += 4;
  return value;
}

function text() {
  const size = int32();
  const end = position + size;
  if (size < 1 || end > limit) {
    outside(size);
  }
  const value = textBetween(buffer, position, end - 1);
  position = end;
  return value;
}

/** Copies bytes out of the buffer, whose memory is reused. */
function copy(length) {
  const bytes = Buffer.allocUnsafe(length);
  if (length <= FEW) {
    for (let index = 0; index < length; index++) {
      bytes[index] = buffer[position + index];
    }
  } else {
    buffer.copy(bytes, 0, position, position + length);
  }
  position += length;
  return bytes;
}

function double() {
  const value = buffer.readDoubleLE(position);
  position += 8;
  return value;
}

function binary() {
  const length = int32();
  const subtype = buffer[position++];
  const end = position + length;
  if (length < 0 || end > limit) {
    outside(length);
  }
  if (subtype === OLD_BINARY_SUBTYPE && length >= 4) {
    // This subtype repeats the length. A wrong length is treated as data.
    if (int32() !== length - 4) {
      position -= 4;
    }
  }
  const bytes = copy(end - position);
  return subtype === UUID_SUBTYPE && length === 16 ? new UUID(bytes) : new Binary(bytes, subtype);
}

/** Reads an int64: a number if it is a safe integer, else a `Long`. */
function int64() {
  const low = int32();
  const high = int32();
  const value = high * 2 ** 32 + (low >>> 0);
  return Number.isSafeInteger(value) ? value : new Long(low, high);
}

function date() {
  const low = int32();
  const high = int32();
  return new Date(high * 2 ** 32 + (low >>> 0));
}

function timestamp() {
  const low = int32();
  const high = int32();
  return new Timestamp({ t: high >>> 0, i: low >>> 0 });
}

/** Reads a regular expression. The class rejects options that other programs may have stored. */
function regex() {
  const pattern = cstring();
  const options = cstring();
  if (REGEX_OPTIONS.test(options)) {
    return new BSONRegExp(pattern, options);
  }
  return Object.assign(Object.create(BSONRegExp.prototype), { pattern, options });
}

function codeWithScope() {
  position += 4;
  const code = text();
  return new Code(code, document());
}

function reference() {
  const namespace = text();
  return new DBRef(namespace, new ObjectId(copy(12)));
}

function value(type) {
  switch (type) {
    case 0x01:
      return double();
    case 0x02:
      return text();
    case 0x03:
      return dereferenced(document());
    case 0x04:
      return array();
    case 0x05:
      return binary();
    case 0x06:
      return noValue;
    case 0x07:
      return new ObjectId(copy(12));
    case 0x08:
      return buffer[position++] === 1;
    case 0x09:
      return date();
    case 0x0a:
      return null;
    case 0x0b:
      return regex();
    case 0x0c:
      return reference();
    case 0x0d:
      return new Code(text());
    case 0x0e:
      return new BSONSymbol(text()).valueOf();
    case 0x0f:
      return codeWithScope();
    case 0x10:
      return int32();
    case 0x11:
      return timestamp();
    case 0x12:
      return int64();
    case 0x13:
      return new Decimal128(copy(16));
    case 0xff:
      return new MinKey();
    case 0x7f:
      return new MaxKey();
    default:
      throw new TypeError(`there is no BSON type ${type}`);
  }
}

function document() {
  position += 4;
  const fields = {};
  const outer = field;
  let before = null;
  for (let type = buffer[position++]; type !== 0; type = buffer[position++]) {
    const name = nameAt(buffer, position, outer, before);
    const key = name.text;
    position += name.size;
    field = name;
    const item = value(type);
    if (key === "__proto__") {
      // An assignment would set the object's prototype.
      Object.defineProperty(fields, key, { value: item, writable: true, enumerable: true, configurable: true });
    } else {
      fields[key] = item;
    }
    before = name;
  }
  field = outer;
  return fields;
}

function array() {
  position += 4;
  const items = [];
  for (let type = buffer[position++]; type !== 0; type = buffer[position++]) {
    // The name is the index, which the position already determines.
    while (buffer[position++] > 0);
    items.push(value(type));
  }
  return items;
}

/**
 * Converts a document to a `DBRef` if its fields have the right types, as the `bson` package
 * does.
 */
function dereferenced(fields) {
  if (typeof fields.$ref !== "string" || !isReference(fields)) {
    return fields;
  }
  const { $ref, $id, $db, ...others } = fields;
  return new DBRef($ref, $id, $db, others);
}

const isReference = ({ $id, ...others }) =>
  $id !== undefined && $id !== null && (!Object.hasOwn(others, "$db") || typeof others.$db === "string");

/**
 * Decodes a document. Integers and doubles become numbers (integers beyond 2^53 a `Long`), every
 * other type its class.
 *
 * `bytes` is a `Buffer` with a valid document. The result does not refer to it.
 */
function decode(bytes) {
  return read(bytes, undefined);
}

/** Decodes the result of a function, in which the SDK reads `undefined` as null. */
function decodeResult(bytes) {
  return read(bytes, null);
}

function read(bytes, undefinedAs) {
  noValue = undefinedAs;
  buffer = bytes;
  limit = bytes.length;
  position = 0;
  field = root;
  try {
    return document();
  } finally {
    // Release the memory of the answer.
    buffer = NOTHING;
  }
}

module.exports = { decode, decodeResult };
