"use strict";

const { createRequire, isBuiltin } = require("node:module");
const path = require("node:path");
const { CallError } = require("./errors.js");

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

/** Returns the first part of a module's name, without `node:`. */
const rootOf = (name) => name.replace(/^node:/, "").split("/", 1)[0];

const isPath = (name) => name.startsWith(".") || path.isAbsolute(name);

const missing = (message) => Object.assign(new CallError(message), { code: "MODULE_NOT_FOUND" });

/** Returns the result of `resolve`, or undefined if there is no such module. */
function tryResolve(from, name) {
  try {
    return from.resolve(name);
  } catch (error) {
    if (error.code === "MODULE_NOT_FOUND") {
      return undefined;
    }
    throw error;
  }
}

/** Loads modules for functions: from the definition's packages, then from the application's. */
class Modules {
  #loaders;

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
        return () => loader(file);
      }
    }
    throw missing(`Cannot find module '${name}', required by function '${functionName}'`);
  }
}

/** Creates `require` of a function. Modules are loaded once per thread, as Node does. */
function makeRequire(modules, context, functionName) {
  return function require(name) {
    if (name === "process" || name === "node:process") {
      return context.process;
    }
    let load;
    try {
      load = modules.find(name, functionName);
    } catch (error) {
      throw Object.assign(new context.realm.Error(error.message), { code: error.code });
    }
    return load();
  };
}

module.exports = { Modules, makeRequire };
