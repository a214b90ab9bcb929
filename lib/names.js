"use strict";

// The names of fields, which are the same in one document as in the one before: making a text of each anew would be half of
// what reading a document costs.

/** How many names are kept, a power of two. One that falls on another's place replaces it. */
const PLACES = 1024;
/** Longer names are not kept, in bytes. */
const LONGEST = 64;

/**
 * A name: its text, its bytes with the zero that ends them, and the places of the name that came after it last and of the first
 * one within its document. They are places and not names, so that a name that was replaced is not held.
 */
class Name {
  constructor(text, bytes) {
    this.text = text;
    this.bytes = bytes;
    this.following = 0;
    this.inner = 0;
  }
}

/** What stands where nothing is known: it equals no bytes. */
const UNKNOWN = new Name("", [-1]);
const places = new Array(PLACES).fill(UNKNOWN);

/** The name of no field, within which a whole document is. */
const root = new Name("", [-1]);

function isAt(name, buffer, position) {
  const { bytes } = name;
  let index = 0;
  while (index < bytes.length && buffer[position + index] === bytes[index]) {
    index++;
  }
  return index === bytes.length;
}

/** The place of the name that begins at a position. */
function placeOf(buffer, position) {
  let hash = 0;
  for (let index = position; buffer[index] !== 0; index++) {
    hash = (Math.imul(hash, 31) + buffer[index]) | 0;
  }
  return hash & (PLACES - 1);
}

function made(buffer, position) {
  const end = buffer.indexOf(0, position);
  return new Name(buffer.utf8Slice(position, end), Array.from(buffer.subarray(position, end + 1)));
}

/**
 * The name that begins at a position of a valid document, `bytes.length` long: the first within `outer`'s document where `before`
 * is null, and otherwise the one after `before`.
 */
function nameAt(buffer, position, outer, before) {
  const expected = places[before === null ? outer.inner : before.following];
  if (isAt(expected, buffer, position)) {
    return expected;
  }
  const place = placeOf(buffer, position);
  if (before === null) {
    outer.inner = place;
  } else {
    before.following = place;
  }
  if (isAt(places[place], buffer, position)) {
    return places[place];
  }
  const name = made(buffer, position);
  if (name.bytes.length <= LONGEST) {
    places[place] = name;
  }
  return name;
}

module.exports = { nameAt, root };
