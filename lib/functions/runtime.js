"use strict";

const { Call } = require("./call.js");
const { checkFunctions } = require("./check.js");
const { ContextPool } = require("./contexts.js");
const { CallError, FunctionFailure } = require("./errors.js");
const { Modules } = require("./require.js");
const { FunctionScript } = require("./scripts.js");

const LIMITS = { operations: 1000, depth: 100, contexts: 16, transactionTime: 60_000 };

/** Returns services by name. An entry is the name of a data source, or `{ name, type }`. */
const servicesByName = (services) =>
  new Map(
    services.map((service) => {
      const entry = typeof service === "string" ? { name: service, type: "mongodb" } : service;
      return [entry.name, entry];
    }),
  );

/** Runs the functions of an app on the current thread. */
class Runtime {
  #contexts;
  #scripts;
  #http;
  #warned = new Set();

  constructor(options) {
    const { app, environment, values = {}, services = [], functions = [], directory, backend } = options;
    const { log = () => {}, limits = {}, http } = options;
    this.limits = { ...LIMITS, ...limits };
    this.backend = backend;
    this.log = log;
    this.values = values;
    this.data = { app, environment, user: { type: "system" } };
    this.services = servicesByName(services);
    this.modules = new Modules(directory);
    this.#http = http;
    this.#contexts = new ContextPool(this.limits.contexts);
    this.#scripts = new Map(functions.map((definition) => [definition.name, new FunctionScript(definition)]));
  }

  /** The client behind `context.http`, which is loaded when it is used. */
  get http() {
    this.#http ??= require("./globals/http.js").makeHttp();
    return this.#http;
  }

  /** @throws CallError if there is no function of the name */
  script(name) {
    const script = this.#scripts.get(name);
    if (script === undefined) {
      throw new CallError(`function not found: '${name}'`, "FunctionNotFound");
    }
    return script;
  }

  /** @throws CallError if the condition of a function that another one executes does not hold */
  assertMayExecute({ name, definition }, callId, args) {
    if (definition.hasCondition && !this.backend.mayExecute(callId, name, args)) {
      throw new CallError(`rule not matched for function "${name}"`);
    }
  }

  /** Returns the problems of all sources as `{ function, file, line, column, message }`. */
  check() {
    return checkFunctions([...this.#scripts.values()], this.modules);
  }

  /**
   * Calls a function and returns `{ value, messages, dropped }`: its result without promises and
   * cursors, its console lines, and the number of lines that were dropped.
   *
   * @throws FunctionFailure with the message and the code of the caller's answer
   */
  async run(request) {
    const context = this.#contexts.take();
    const call = new Call(this, context, request);
    try {
      const result = await call.run();
      this.#warnOfErrorField(request.name, result.value);
      return result;
    } finally {
      this.#contexts.release(context, call);
    }
  }

  /** Logs once per function that the native client rejects a result with a text as `error`. */
  #warnOfErrorField(name, value) {
    if (typeof value?.error === "string" && !this.#warned.has(name)) {
      this.#warned.add(name);
      const message = "function returned an object with a string field 'error', which clients treat as a failure";
      this.log("warn", { message, function: name });
    }
  }
}

module.exports = { FunctionFailure, Runtime };
