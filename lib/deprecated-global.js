"use strict";

const ADVICE = 'Import it instead: `import Realm from "userkeep"` or `const Realm = require("userkeep")`';

/** Defines the SDK's global `Realm`, unless a global has that name. The first read warns. */
function defineGlobal(Realm) {
  if ("Realm" in globalThis) {
    return;
  }
  let hasWarned = false;
  // Unlike Object.defineProperty, this does not throw if the global object is frozen.
  Reflect.defineProperty(globalThis, "Realm", {
    configurable: true,
    enumerable: false,
    get() {
      if (Realm.flags.THROW_ON_GLOBAL_REALM) {
        throw new Error(`The global 'Realm' was accessed. ${ADVICE}`);
      }
      if (!hasWarned) {
        hasWarned = true;
        process.emitWarning(
          `The global 'Realm' is deprecated. ${ADVICE}. ` +
            "Set Realm.flags.THROW_ON_GLOBAL_REALM = true to find the code that reads it",
          { type: "DeprecationWarning", code: "USERKEEP_GLOBAL_REALM" },
        );
      }
      return Realm;
    },
    set(value) {
      Reflect.defineProperty(globalThis, "Realm", { configurable: true, enumerable: true, writable: true, value });
    },
  });
}

module.exports = { defineGlobal };
