"use strict";

const { types } = require("node:util");
const { Call } = require("./call.js");
const { checkFunctions } = require("./check.js");
const { ContextPool } = require("./contexts.js");
const { runAs } = require("./current-call.js");
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

/** Returns the warning of a result that clients do not receive as it is, or undefined. */
function warningOf(value) {
  if (types.isNativeError(value)) {
    return "function returned an error, which reaches the client as a document of its own fields: throw it instead";
  }
  if (types.isSet(value) || types.isWeakMap(value) || types.isWeakSet(value)) {
    return "function returned an object without fields, such as a Set, which reaches the client as {}";
  }
  try {
    return typeof value.error === "string"
      ? "function returned an object with a string field 'error', which clients treat as a failure"
      : undefined;
  } catch {
    // A getter, whose error the encoder reports.
    return undefined;
  }
}

/** Runs the functions of an app on the current thread. */
class Runtime {
  #contexts;
  #scripts;
  #http;
  #sockets;
  /** The calls under way, by their numbers: functions that end them. */
  #running = new Map();
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

  /** Creates the client behind `context.http` of a call, which `signal` ends, for a user's id. */
  makeHttp(signal, user) {
    const { DEFAULT_LIMITS, Gate, makeHttp } = require("./globals/http.js");
    this.#sockets ??= new Gate(DEFAULT_LIMITS.sockets);
    return this.#http ?? makeHttp({ signal, gate: this.#sockets, user });
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
    const cancelled = new Promise((_, reject) => this.#running.set(request.id, reject));
    let isFinished = false;
    try {
      const result = await Promise.race([runAs(call, () => call.run()), cancelled]);
      isFinished = true;
      this.#warnOfResult(request.name, result.value);
      return result;
    } catch (error) {
      isFinished = error instanceof FunctionFailure;
      throw error;
    } finally {
      this.#running.delete(request.id);
      if (isFinished) {
        this.#contexts.release(context, call);
      } else {
        this.#contexts.discard(context);
        call.abort();
      }
    }
  }

  /** Ends a call whose result is not wanted any more. Its context is not used again. */
  cancel(id) {
    this.#running.get(id)?.(new Error("the call was cancelled"));
  }

  /** Logs once per function that its result does not reach clients as the function returned it. */
  #warnOfResult(name, value) {
    const message = typeof value === "object" && value !== null ? warningOf(value) : undefined;
    if (message !== undefined && !this.#warned.has(name)) {
      this.#warned.add(name);
      this.log("warn", { message, function: name });
    }
  }
}

module.exports = { FunctionFailure, Runtime };
