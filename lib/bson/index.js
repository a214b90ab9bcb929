"use strict";

const { encode, encodeWithUndefined } = require("./encode.js");

/** Makes a class callable without `new`, as in older versions of `bson`. */
function callable(Class) {
  const proxy = new Proxy(Class, {
    apply: (target, _this, args) => new target(...args),
    construct: (target, args, newTarget) => Reflect.construct(target, args, newTarget === proxy ? target : newTarget),
  });
  return proxy;
}

const isClass = (value) =>
  typeof value === "function" && Object.getOwnPropertyDescriptor(value, "prototype")?.writable === false;

let classes;
let decoder;
let resultDecoder;

/** Creates `Realm.BSON` from the `bson` package. */
function makeClasses() {
  const BSON = {};
  for (const [name, value] of Object.entries(require("bson"))) {
    BSON[name] = isClass(value) && !name.endsWith("Error") ? callable(value) : value;
  }
  BSON.ObjectID = BSON.ObjectId;
  return Object.freeze(BSON);
}

/** Decodes a document with `decode.js`, which is loaded on demand. */
function decode(bytes) {
  decoder ??= require("./decode.js").decode;
  return decoder(bytes);
}

/** Does the same for the result of a function. */
function decodeResult(bytes) {
  resultDecoder ??= require("./decode.js").decodeResult;
  return resultDecoder(bytes);
}

// The `bson` package takes as long to load as the rest of Userkeep, so it is loaded on demand.
module.exports = {
  get BSON() {
    classes ??= makeClasses();
    return classes;
  },
  decode,
  decodeResult,
  encode,
  encodeWithUndefined,
};
