"use strict";

const { remember } = require("./shared-objects.js");
const { Timers, timerModules } = require("./timers.js");
const { makeConsole } = require("./console.js");
const { guardContext } = require("./memory.js");

/** The globals of Node that functions have too. */
const SHARED = [
  "AbortController",
  "AbortSignal",
  "ArrayBuffer",
  "Blob",
  "Buffer",
  "DOMException",
  "Event",
  "EventTarget",
  "FormData",
  "Headers",
  "Request",
  "Response",
  "TextDecoder",
  "TextEncoder",
  "URL",
  "URLSearchParams",
  "Uint8Array",
  "atob",
  "btoa",
  "crypto",
  "fetch",
];

/** Those whose results or events can arrive after the call. */
const ASYNCHRONOUS = new Set(["AbortSignal", "Blob", "Request", "Response", "crypto", "fetch"]);

/** Wraps the functions of an object, so that their results belong to the realm. */
function converted(realm, object) {
  const members = Object.entries(object).map(([name, member]) => [
    name,
    typeof member === "function" ? Object.freeze((...args) => realm.convert(member(...args))) : member,
  ]);
  return Object.freeze(Object.fromEntries(members));
}

let bson;

/** Returns the global `BSON`, which all contexts share. */
function sharedBson() {
  bson ??= Object.freeze(require("./globals/bson.js").makeBson());
  return bson;
}

/** Returns the global `performance`: its clock only. Marks would belong to the whole thread. */
const clock = () => Object.freeze({ now: Object.freeze(() => performance.now()), timeOrigin: performance.timeOrigin });

/** Returns `process.hrtime`. */
function highResolutionTime() {
  const hrtime = (previous) => process.hrtime(previous);
  hrtime.bigint = Object.freeze(() => process.hrtime.bigint());
  return Object.freeze(hrtime);
}

/** The globals that are loaded when a function uses them. */
const LAZY = {
  BSON: sharedBson,
  EJSON: (realm) => converted(realm, require("./globals/ejson.js").makeEjson(sharedBson())),
  performance: clock,
  utils: (realm) =>
    Object.freeze({
      jwt: converted(realm, require("./globals/jwt.js").jwt),
      crypto: converted(realm, require("./globals/crypto.js").crypto),
    }),
};

/** Defines a global. An assignment to it is visible as a change of the global object. */
function define(global, name, value) {
  Object.defineProperty(global, name, { value, writable: true, enumerable: false, configurable: true });
}

/** Notes the use of the classes of `BSON`. */
function noteClasses(context, bson) {
  for (const value of Object.values(bson)) {
    remember(value);
    context.used.add(value);
  }
}

function defineLazily(global, name, load, noteUse) {
  let value;
  Object.defineProperty(global, name, {
    get() {
      value ??= load();
      noteUse(value);
      return value;
    },
    set(replacement) {
      Object.defineProperty(global, name, { value: replacement, writable: true, enumerable: true, configurable: true });
    },
    enumerable: false,
    configurable: true,
  });
}

/** Creates `process` as functions see it: without `exit`, with the environment of the thread. */
function makeProcess(context) {
  return {
    version: process.version,
    versions: Object.freeze({ ...process.versions }),
    hrtime: highResolutionTime(),
    nextTick: (callback, ...args) => process.nextTick(context.timers.guarded(callback), ...args),
    get env() {
      return context.call.environment;
    },
  };
}

/** Installs the globals of functions in a context. */
function installGlobals(context) {
  const { realm } = context;
  const { global } = realm;
  context.timers = new Timers((error) => context.call.reportError(error));
  context.process = makeProcess(context);
  for (const name of SHARED) {
    if (name in globalThis) {
      const noteUse = (value) => {
        remember(value);
        context.used.add(value);
        context.isUsedUp ||= ASYNCHRONOUS.has(name);
      };
      defineLazily(global, name, () => globalThis[name], noteUse);
    }
  }
  for (const [name, load] of Object.entries(LAZY)) {
    const noteUse = name === "BSON" ? (bson) => noteClasses(context, bson) : () => {};
    defineLazily(global, name, () => load(realm), noteUse);
  }
  const timers = context.timers.functions(realm.Promise);
  for (const [name, value] of Object.entries(timers)) {
    define(global, name, value);
  }
  context.modules = timerModules(timers, realm.Promise);
  define(global, "structuredClone", (value, options) => realm.convert(structuredClone(value, options)));
  define(
    global,
    "console",
    makeConsole((level, text) => context.call.write(level, text)),
  );
  define(global, "process", context.process);
  guardContext(global);
  define(global, "global", global);
}

module.exports = { installGlobals };
