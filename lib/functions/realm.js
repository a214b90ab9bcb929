"use strict";

const { types } = require("node:util");
const vm = require("node:vm");

/**
 * Creates the objects that must belong to the realm of a context, so that `instanceof` and
 * `constructor` work inside functions.
 *
 * It is compiled in each context. Therefore it must not refer to anything outside itself.
 */
function makeRealm(host) {
  "use strict";
  const { defineProperty, getPrototypeOf, keys, prototype: plain } = Object;
  const { isArray, prototype: arrays } = Array;
  const OwnError = Error;
  const OwnDate = Date;

  class FunctionError extends OwnError {}
  defineProperty(FunctionError.prototype, "name", { value: "FunctionError", writable: true, configurable: true });

  // Modules run in the main realm, so their errors have another class.
  const isInstance = Function.prototype[Symbol.hasInstance];
  defineProperty(OwnError, Symbol.hasInstance, {
    value(value) {
      return isInstance.call(this, value) || (this === OwnError && host.isNativeError(value));
    },
  });

  function convertArray(value) {
    const items = [];
    for (let index = 0; index < value.length; index++) {
      items[index] = convert(value[index]);
    }
    return items;
  }

  function convertDocument(value) {
    const fields = {};
    for (const name of keys(value)) {
      if (name === "__proto__") {
        const field = { value: convert(value[name]), writable: true, enumerable: true, configurable: true };
        defineProperty(fields, name, field);
      } else {
        fields[name] = convert(value[name]);
      }
    }
    return fields;
  }

  /** Copies the documents inside a value of BSON, which would belong to the other realm. */
  function convertInside(value) {
    switch (value._bsontype) {
      case "Binary":
        return host.withMethods(value);
      case "DBRef":
        value.oid = convert(value.oid);
        value.fields = convert(value.fields);
        return value;
      case "Code":
        value.scope = convert(value.scope);
        return value;
      default:
        return value;
    }
  }

  /** Copies documents, arrays and dates of another realm. Returns other values as they are. */
  function convert(value) {
    if (typeof value !== "object" || value === null) {
      return value;
    }
    const prototype = getPrototypeOf(value);
    if (prototype === plain || prototype === arrays) {
      return value;
    }
    if (isArray(value)) {
      return convertArray(value);
    }
    if (host.isDate(value)) {
      return new OwnDate(host.timeOf(value));
    }
    if (prototype === null || getPrototypeOf(prototype) === null) {
      return convertDocument(value);
    }
    return convertInside(value);
  }

  const { exec } = RegExp.prototype;
  const { apply } = Reflect;
  const nothing = /(?:)/;
  /** Clears what `RegExp.$1` and the like show of the last match. */
  const forgetMatch = () => apply(exec, nothing, [""]);
  const isFunctionError = (value) => value instanceof FunctionError;
  return {
    Promise,
    Error: OwnError,
    TypeError,
    FunctionError,
    isFunctionError,
    convert,
    forgetMatch,
    global: globalThis,
  };
}

let hasMethods = false;

/** Returns a `Binary` after its class has got the methods that functions use, such as `text`. */
function withMethods(binary) {
  if (!hasMethods) {
    require("./globals/binary.js");
    hasMethods = true;
  }
  return binary;
}

const HOST = {
  isDate: types.isDate,
  isNativeError: types.isNativeError,
  withMethods,
  timeOf: Function.prototype.call.bind(Date.prototype.getTime),
};

let script;

/** Creates the realm of a context. */
function realmOf(context) {
  script ??= new vm.Script(`(${makeRealm})`, { filename: __filename });
  return script.runInContext(context)(HOST);
}

module.exports = { realmOf };
