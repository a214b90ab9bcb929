"use strict";

// A promise of a function that is rejected and not handled must not end the thread, or reach the
// application's listeners of `unhandledRejection`. A listener of our own would change the
// behaviour of the application's other promises. Therefore the events are intercepted before
// any listener receives them.

/** The process itself: jest gives modules a copy. */
const host = process.getBuiltinModule("node:process");

/** The contexts by the prototype of their promises. */
const contexts = new WeakMap();
let isInstalled = false;

/** Returns the context whose realm a promise belongs to. */
function contextOf(promise) {
  let prototype = promise;
  while (prototype !== null && typeof prototype === "object") {
    const context = contexts.get(prototype);
    if (context !== undefined) {
      return context;
    }
    prototype = Object.getPrototypeOf(prototype);
  }
  return undefined;
}

function install() {
  isInstalled = true;
  const { emit } = host;
  host.emit = function emitOthers(event, ...args) {
    if (event === "unhandledRejection") {
      const context = contextOf(args[1]);
      if (context !== undefined) {
        context.rejected(args[1], args[0]);
        return true;
      }
    } else if (event === "rejectionHandled") {
      const context = contextOf(args[0]);
      if (context !== undefined) {
        context.handled(args[0]);
        return true;
      }
    }
    return emit.call(this, event, ...args);
  };
}

/** Reports rejections of a realm's promises to `context.rejected` and `context.handled`. */
function interceptRejections(PromiseClass, context) {
  if (!isInstalled) {
    install();
  }
  contexts.set(PromiseClass.prototype, context);
}

module.exports = { interceptRejections };
