"use strict";

const { createRequire, isBuiltin } = require("node:module");
const path = require("node:path");
const { native } = require("../bridge.js");
const { CallError, describe } = require("./errors.js");
const { keepingChanges, remember } = require("./shared-objects.js");

/** The modules of Node that functions cannot load. */
const UNSUPPORTED = new Set([
  "child_process",
  "cluster",
  "domain",
  "inspector",
  "module",
  "readline",
  "repl",
  "sqlite",
  "v8",
  "vm",
  "worker_threads",
]);

/** The modules of Node that call nothing back after the call has ended. */
const SYNCHRONOUS = new Set(
  "assert buffer constants crypto events os path punycode querystring string_decoder sys url util".split(" "),
);

/** Modules with symbols, which only the full check finds as names of properties. */
const WITH_SYMBOLS = new Set(["events", "sys", "util"]);

/** The members of `crypto` that only compute. The others can call back later. */
const SYNCHRONOUS_CRYPTO =
  /^(?:(?:create|get|set)[A-Z]\w*|\w+Sync|hash|randomUUID|timingSafeEqual|constants|[A-Z]\w*)$/;

const bareName = (name) => name.replace(/^node:/, "");

/** Returns the first part of a module's name, without `node:`. */
const rootOf = (name) => bareName(name).split("/", 1)[0];

const isPath = (name) => name.startsWith(".") || path.isAbsolute(name);

const missing = (message) => Object.assign(new CallError(message), { code: "MODULE_NOT_FOUND" });

/** A path of the machine in a text. */
const ABSOLUTE_PATH = /(?:^|[\s'"`(=])(?:file:|\/|\\\\|[A-Za-z]:[\\/])/;

/**
 * Returns the error of a package that cannot be loaded. The whole message goes to the log. Clients
 * receive its first line, unless that contains a path.
 */
function loadingError(name, error) {
  const text = describe(error);
  native.logOfFunction("error", `cannot load module '${name}': ${text}`);
  const [line] = text.split("\n", 1);
  const code = typeof error?.code === "string" ? error.code : undefined;
  const message = ABSOLUTE_PATH.test(line) ? `Cannot load module '${name}'` : line;
  return Object.assign(new CallError(message), { code });
}

/** Returns the result of `resolve`, or undefined if there is no such module. */
function tryResolve(from, name) {
  try {
    return from.resolve(name);
  } catch (error) {
    if (error.code === "MODULE_NOT_FOUND") {
      return undefined;
    }
    throw loadingError(name, error);
  }
}

/** Loads modules for functions: from the definition's packages, then from the application's. */
class Modules {
  #loaders;
  /** The files of the packages that were loaded. */
  #loaded = new Set();

  constructor(directory) {
    const places = [directory, process.cwd()].filter((place) => place !== undefined);
    this.#loaders = places.map((place) => createRequire(path.join(place, "functions.js")));
  }

  /**
   * Finds a module and returns a function that loads it.
   *
   * @throws CallError if functions cannot load it
   */
  find(name, functionName) {
    if (typeof name !== "string" || name === "") {
      throw new CallError(`require: "id" argument must be a string in function '${functionName}'`);
    }
    if (isBuiltin(name)) {
      if (UNSUPPORTED.has(rootOf(name))) {
        throw missing(`Cannot find module '${name}'`);
      }
      return () => this.#loaders[0](name);
    }
    if (isPath(name)) {
      const advice = "functions share code with context.functions.execute or packages";
      throw missing(`Cannot find module '${name}', required by function '${functionName}': ${advice}`);
    }
    for (const loader of this.#loaders) {
      const file = tryResolve(loader, name);
      if (file !== undefined) {
        return () => this.#loadPackage(loader, file);
      }
    }
    throw missing(`Cannot find module '${name}', required by function '${functionName}'`);
  }

  #loadPackage(loader, file) {
    if (this.#loaded.has(file)) {
      return loader(file);
    }
    this.#loaded.add(file);
    return keepingChanges(() => loader(file));
  }
}

/** Creates `require` of a function. Modules are loaded once per thread, as Node does. */
function makeRequire(modules, context, functionName) {
  return function require(name) {
    if (name === "process" || name === "node:process") {
      return context.process;
    }
    if (isBuiltin(name) && Object.hasOwn(context.modules, bareName(name))) {
      return context.modules[bareName(name)];
    }
    let load;
    try {
      load = modules.find(name, functionName);
    } catch (error) {
      throw Object.assign(new context.realm.Error(error.message), { code: error.code });
    }
    return loaded(name, load, context);
  };
}

/** Loads a module, and notes what the function can do with it. */
function loaded(name, load, context) {
  if (!isBuiltin(name)) {
    context.isUsedUp = true;
    try {
      return load();
    } catch (error) {
      const { message, code } = loadingError(name, error);
      throw Object.assign(new context.realm.Error(message), { code });
    }
  }
  const root = rootOf(name);
  context.isUsedUp ||= !SYNCHRONOUS.has(root);
  context.call.needsFullCheck ||= WITH_SYMBOLS.has(root);
  const module = load();
  noteModule(module, context);
  return root === "crypto" ? watchedCrypto(module, context) : module;
}

/** Notes a module of Node and its classes, whose changes are taken back after the call. */
function noteModule(module, context) {
  const isClass = (value) => typeof value === "function" && /^[A-Z]/.test(value.name);
  for (const value of [module, ...Object.values(module).filter(isClass)]) {
    remember(value);
    context.used.add(value);
  }
}

/** Those of the others that call back only if they get a callback. */
const OPTIONAL_CALLBACK = new Set(["randomBytes", "randomInt", "sign", "verify"]);

/** Returns `crypto`, which notes the use of members that can call back after the call. */
function watchedCrypto(crypto, context) {
  return new Proxy(crypto, {
    get(target, name) {
      if (OPTIONAL_CALLBACK.has(name)) {
        return (...args) => {
          context.isUsedUp ||= typeof args.at(-1) === "function";
          return target[name](...args);
        };
      }
      context.isUsedUp ||= typeof name === "string" && !SYNCHRONOUS_CRYPTO.test(name);
      return target[name];
    },
  });
}

module.exports = { Modules, makeRequire };
