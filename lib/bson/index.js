"use strict";

const { encode } = require("./encode.js");

/** A class that may also be called without `new`, as those of older versions of `bson` could. */
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

/** Makes `Realm.BSON` out of the `bson` package. */
function makeClasses() {
  const BSON = {};
  for (const [name, value] of Object.entries(require("bson"))) {
    BSON[name] = isClass(value) && !name.endsWith("Error") ? callable(value) : value;
  }
  BSON.ObjectID = BSON.ObjectId;
  return Object.freeze(BSON);
}

/** Reads a document, as `decode` in `decode.js` does. */
function decode(bytes) {
  decoder ??= require("./decode.js").decode;
  return decoder(bytes);
}

// The `bson` package takes as long to load as the rest of Userkeep, so it is loaded with the first value of its classes.
module.exports = {
  get BSON() {
    classes ??= makeClasses();
    return classes;
  },
  decode,
  encode,
};
