"use strict";

// Protects the objects that all contexts of a thread share. A function that merges the arguments
// of a user carelessly must not change them for the calls of other users. Packages may extend the
// classes of Node, whose changes by functions are taken back (`shared-objects.js`).

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

/** Protects the shared objects of this thread, which must not run the application's code too. */
function protectShared() {
  // It adds methods to `Binary`.
  require("./globals/binary.js");
  const classes = Object.values(require("bson")).filter((value) => typeof value === "function" && value.prototype);
  for (const Class of classes) {
    protect(Class);
    protect(Class.prototype);
  }
  // Modules assign to names such as `toString` of their own objects, so those stay writable.
  Object.preventExtensions(Object.prototype);
}

module.exports = { protectShared };
