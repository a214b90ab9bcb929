"use strict";

const { textBetween } = require("./ascii.js");

// The names of fields, which are the same in one document as in the one before: making a text of each anew would be half of
// what reading a document costs.

/** How many names are kept, a power of two. One that falls on another's place replaces it. */
const PLACES = 1024;
/** Longer names are not kept, in bytes. */
const LONGEST = 64;

/**
 * A name: its text, its size with the zero that ends it, its bytes, and the places of the name that came after it last and of the
 * first one within its document. They are places and not names, so that a name that was replaced is not held.
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

/** What stands where nothing is known: it equals no bytes. */
const nothing = new Name("", [-1]);
const places = new Array(PLACES).fill(nothing);

/** The hash that was last at a place: a name is kept when it comes again, and not where every one is another, as in a dictionary. */
const hashes = new Int32Array(PLACES);

/** The name of no field, within which a whole document is. */
const root = new Name("", [-1]);

/** Stands for every name that is not kept. */
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
 * The name that begins at a position of a valid document, `size` long: the first within `outer`'s document where `before` is null, and
 * otherwise the one after `before`. Its text is only to be relied on until the next call.
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
