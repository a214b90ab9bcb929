"use strict";

const { types } = require("node:util");
const { Binary } = require("bson");

/** Returns the bytes of a `Binary`, without a copy. */
function bytesOfBinary(binary) {
  const { buffer, position } = binary;
  return Buffer.from(buffer.buffer, buffer.byteOffset, Math.min(position, buffer.byteLength));
}

/** The methods that App Services' `Binary` has and the package's does not. */
const METHODS = {
  text() {
    return bytesOfBinary(this).toString("utf8");
  },
  toHex() {
    return bytesOfBinary(this).toString("hex");
  },
  toBase64() {
    return bytesOfBinary(this).toString("base64");
  },
};

// The methods are on the package's class, because functions also get its instances from documents.
// Each worker has its own copy of the package, so an application's `bson` stays as it is.
for (const [name, value] of Object.entries(METHODS)) {
  if (!(name in Binary.prototype)) {
    Object.defineProperty(Binary.prototype, name, { value, writable: true, configurable: true });
  }
}

/** Returns true for a `Binary` of any version of `bson`, but not for JSON that looks like one. */
const isBinary = (value) =>
  typeof value === "object" && value !== null && value._bsontype === "Binary" && types.isUint8Array(value.buffer);

/**
 * Returns the bytes of a text, a `Binary`, a typed array or an `ArrayBuffer`, and undefined for
 * other values.
 */
function bytesOf(value) {
  if (typeof value === "string") {
    return Buffer.from(value, "utf8");
  }
  if (isBinary(value)) {
    return bytesOfBinary(value);
  }
  if (ArrayBuffer.isView(value)) {
    return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  }
  return types.isAnyArrayBuffer(value) ? Buffer.from(value) : undefined;
}

/**
 * Returns a `Binary` with a copy of bytes. Node's pool of buffers is behind small ones, and must
 * not be visible to functions.
 */
const toBinary = (bytes, subType = 0) => new Binary(new Uint8Array(bytes), subType);

module.exports = { bytesOf, isBinary, toBinary };
