"use strict";

const { textBetween } = require("./ascii.js");

// Caches the names of fields, which repeat from one document to the next. Decoding each name again
// would be half the cost of a document.

/** The capacity of the cache, a power of two. A name replaces another one in the same slot. */
const PLACES = 1024;
/** The maximum size of a cached name, in bytes. */
const LONGEST = 64;

/**
 * A cached name: its text, its size with the final zero byte, and its bytes.
 *
 * `following` is the slot of the name that came next last time, and `inner` that of the first
 * name in its document. They are slots instead of names, so that a replaced name is released.
 */
class Name {
  constructor(text, bytes) {
    this.text = text;
    this.size = bytes.length;
    this.bytes = bytes;
    this.following = 0;
    this.inner = 0;
  }
}

/** The content of an empty slot. It equals no bytes. */
const nothing = new Name("", [-1]);
const places = new Array(PLACES).fill(nothing);

/**
 * The last hash of each slot. A name is cached when it occurs twice in a row in its slot, so that
 * documents with ever different names, such as dictionaries, do not fill the cache.
 */
const hashes = new Int32Array(PLACES);

/** The parent of a document's top-level names. */
const root = new Name("", [-1]);

/** The result for every name that is not cached. */
const unkept = new Name("", [-1]);

function isAt(name, buffer, position) {
  const { bytes } = name;
  let index = 0;
  while (index < bytes.length && buffer[position + index] === bytes[index]) {
    index++;
  }
  return index === bytes.length;
}

/**
 * Returns the name at a position of a valid document: the first one in `outer`'s document if
 * `before` is null, else the one after `before`. The result is only valid until the next call.
 */
function nameAt(buffer, position, outer, before) {
  const expected = places[before === null ? outer.inner : before.following];
  if (isAt(expected, buffer, position)) {
    return expected;
  }
  let hash = 0;
  let end = position;
  // After the end of the buffer there is no number greater than 0.
  for (let code = buffer[end]; code > 0; code = buffer[++end]) {
    hash = (Math.imul(hash, 31) + code) | 0;
  }
  if (end >= buffer.length) {
    throw new RangeError(`the name at ${position} does not end`);
  }
  const place = hash & (PLACES - 1);
  if (before === null) {
    outer.inner = place;
  } else {
    before.following = place;
  }
  if (isAt(places[place], buffer, position)) {
    return places[place];
  }
  const text = textBetween(buffer, position, end);
  const size = end + 1 - position;
  if (hashes[place] === hash && size <= LONGEST) {
    places[place] = new Name(text, Array.from(buffer.subarray(position, end + 1)));
    return places[place];
  }
  hashes[place] = hash;
  unkept.text = text;
  unkept.size = size;
  return unkept;
}

module.exports = { nameAt, root };
