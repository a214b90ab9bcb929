"use strict";

// Protects the objects that all contexts of a thread share. A function that merges the arguments
// of a user carelessly must not change them for the calls of other users. Values such as an
// `ObjectId` lead to the built-in objects of the main realm. Packages may extend the classes of
// Node, whose changes by functions are taken back (`shared-objects.js`).

/** Makes the methods of an object read-only, but not its data, and rejects new properties. */
function protect(object) {
  for (const key of Reflect.ownKeys(object)) {
    const descriptor = Object.getOwnPropertyDescriptor(object, key);
    if (descriptor.configurable && typeof (descriptor.value ?? descriptor.get) === "function") {
      Object.defineProperty(object, key, {
        configurable: false,
        ...("value" in descriptor && { writable: false }),
      });
    }
  }
  Object.preventExtensions(object);
}

/** Names that modules assign to on their own objects, which inherit them. */
const OVERRIDDEN = new Set(["constructor", "toString", "toLocaleString", "valueOf", "toJSON"]);

/** Makes a method read-only on an object, but lets objects that inherit from it replace it. */
function protectOverridden(object, name, value) {
  Object.defineProperty(object, name, {
    get: () => value,
    set(replacement) {
      if (this === object) {
        throw new TypeError(`Cannot assign to read only property '${name}' of a built-in object`);
      }
      Object.defineProperty(this, name, { value: replacement, writable: true, enumerable: true, configurable: true });
    },
    enumerable: false,
    configurable: false,
  });
}

/** Makes the methods of a built-in object read-only. Fields of users have no symbols as names. */
function protectBuiltIn(object) {
  for (const name of Object.getOwnPropertyNames(object)) {
    const { value, configurable, enumerable } = Object.getOwnPropertyDescriptor(object, name);
    if (!configurable || typeof value !== "function") {
      continue;
    }
    if (OVERRIDDEN.has(name)) {
      protectOverridden(object, name, value);
    } else {
      Object.defineProperty(object, name, { value, writable: false, enumerable, configurable: false });
    }
  }
}

/** Protects the shared objects of this thread, which must not run the application's code too. */
function protectShared() {
  // It adds methods to `Binary`.
  require("./globals/binary.js");
  const classes = Object.values(require("bson")).filter((value) => typeof value === "function" && value.prototype);
  for (const Class of classes) {
    protect(Class);
    protect(Class.prototype);
  }
  // Not `Array`, which would become slower: the arrays of a user's values belong to a context.
  for (const Class of [Function, ArrayBuffer, Object.getPrototypeOf(Uint8Array), Uint8Array]) {
    for (const object of [Class, Class.prototype]) {
      protectBuiltIn(object);
      Object.preventExtensions(object);
    }
  }
  protectBuiltIn(Object);
  Object.preventExtensions(Object);
  // Packages may extend it.
  protectBuiltIn(Buffer);
  protectBuiltIn(Buffer.prototype);
  // Modules assign to names such as `toString` of their own objects, so those stay writable.
  Object.preventExtensions(Object.prototype);
}

module.exports = { protectShared };
