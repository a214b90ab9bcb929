"use strict";

const bson = require("bson");
const { decode } = require("./decode.js");
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

const BSON = {};
for (const [name, value] of Object.entries(bson)) {
  BSON[name] = isClass(value) && !name.endsWith("Error") ? callable(value) : value;
}
BSON.ObjectID = BSON.ObjectId;
Object.freeze(BSON);

module.exports = { BSON, encode, decode };
