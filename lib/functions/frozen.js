"use strict";

/**
 * Freezes the classes whose instances functions receive. All calls of a thread share them, so what
 * a function stored there would be visible to the next call.
 */
function freezeClasses(...classes) {
  for (const Class of classes) {
    Object.freeze(Class);
    Object.freeze(Class.prototype);
  }
}

module.exports = { freezeClasses };
