"use strict";

const { withKeys } = require("./bare-keys.js");
const { Lines } = require("./console.js");
const { FunctionContextObject } = require("./context.js");
const { OpenOperations, turn } = require("./drain.js");
const { CallError, describe, isCallError, toFailure, toFunctionError } = require("./errors.js");
const { makeRequire } = require("./require.js");
const { settle } = require("./result.js");

const isThenable = (value) => typeof value === "object" && value !== null && typeof value.then === "function";

/** An outermost call of a function, with the functions that it executes. */
class Call {
  sessions = [];
  /** True if a function of the call needs the full check of the context afterwards. */
  needsFullCheck = false;
  #namesKeys = false;
  #runtime;
  #context;
  #request;
  #operations;
  #isEnded = false;
  #rejections = new Map();
  #http;
  #aborting;
  #counts = new WeakSet();
  #converted = new Map();

  constructor(runtime, context, request) {
    this.#runtime = runtime;
    this.#context = context;
    this.#request = request;
    this.realm = context.realm;
    this.lines = new Lines(request.isTrigger === true);
    this.#operations = new OpenOperations(runtime.limits.operations);
    context.call = this;
  }

  get transactionTime() {
    return this.#runtime.limits.transactionTime;
  }

  /** The environment of the thread, copied for the call. */
  get environment() {
    return this.#once("env", () => ({ ...process.env }));
  }

  get http() {
    if (this.#http === undefined) {
      this.#aborting = new AbortController();
      this.#http = this.#runtime.makeHttp(this.#aborting.signal, this.#request.user?.id);
    }
    return this.#http;
  }

  /**
   * Ends a call that was cancelled: its requests are aborted, and it can begin no more operations.
   * The backend does not read the report of such a call, so its console lines go to the log.
   */
  abort() {
    const { messages, dropped } = this.lines;
    for (const { level, text } of messages) {
      this.#log(level, text);
    }
    if (dropped > 0) {
      this.#log("info", "lines of the console were dropped", { dropped });
    }
    this.#aborting?.abort();
    this.#end();
  }

  #end() {
    this.#isEnded = true;
    // Later lines have limits of their own.
    this.lines = new Lines(true);
    // The context refers to its last call, whose arguments can be large.
    this.#request = { ...this.#request, arguments: undefined };
  }

  #log(level, message, fields) {
    this.#runtime.log(level, { message, function: this.#request.name, ...fields });
  }

  /** Adds a console line. After the end of the call, the line goes to the log. */
  write(level, text) {
    const { messages, dropped } = this.lines;
    this.lines.add(level, text);
    if (this.#isEnded && this.lines.dropped === dropped) {
      this.#log(level, messages.at(-1).text);
    }
  }

  service(name) {
    return this.#runtime.services.get(name);
  }

  /** Returns a value of `context`, converted once per call. */
  data(name) {
    return this.#once(name, () => this.#request[name] ?? this.#runtime.data[name]);
  }

  #once(name, read) {
    if (!this.#converted.has(name)) {
      this.#converted.set(name, this.realm.convert(read()));
    }
    return this.#converted.get(name);
  }

  value(name) {
    const { values } = this.#runtime;
    return Object.hasOwn(values, name) ? this.realm.convert(values[name]) : undefined;
  }

  /** Runs the function and waits for everything that it began. */
  async run() {
    const { name, arguments: args = [], isSystem = false } = this.#request;
    let value;
    let failure;
    try {
      const script = this.#runtime.script(name);
      const parameters = args.map((argument) => this.realm.convert(argument));
      value = await settle(this.#invoke(script, parameters, isSystem, 0), this);
    } catch (error) {
      failure = toFailure(error);
    }
    await this.#finish();
    const { overflow } = this.#operations;
    failure = overflow === null ? failure : toFailure(toFunctionError(this.realm, overflow));
    const { messages, dropped } = this.lines;
    this.#end();
    if (failure !== undefined) {
      throw Object.assign(failure, { messages, dropped });
    }
    return { value: this.#complete(value), messages, dropped };
  }

  async #finish() {
    const report = (error) => this.reportError(error);
    await this.#operations.drain(report, (promise) => this.#rejections.has(promise));
    const open = this.sessions.filter((session) => session.inTransaction());
    if (open.length > 0) {
      await Promise.all(open.map((session) => session.abortTransaction().then(undefined, report)));
    }
    if (this.#rejections.size > 0) {
      // Node reports in its next turn that a promise was handled after all.
      await turn();
    }
    for (const reason of this.#rejections.values()) {
      this.reportError(reason);
    }
  }

  #assertOpen() {
    if (this.#isEnded) {
      throw this.#error("the function call has ended");
    }
  }

  /** Evaluates a source and calls its function. */
  #invoke(script, args, isSystem, depth) {
    this.needsFullCheck ||= script.needsFullCheck;
    this.#context.isUsedUp ||= script.isAsynchronous;
    this.#namesKeys ||= script.namesKeys;
    const evaluate = this.#context.evaluator(script);
    const context = new FunctionContextObject(this, isSystem, depth);
    const required = makeRequire(this.#runtime.modules, this.#context, script.name);
    const exported = evaluate.call(undefined, {}, context, required);
    if (typeof exported !== "function") {
      throw this.#error(`exports of function '${script.name}' is not a function`, "FunctionInvalid");
    }
    return exported(...args);
  }

  #error(message, errorCode) {
    return toFunctionError(this.realm, new CallError(message, errorCode));
  }

  /** Executes another function: by reference, at once, and with exactly its result. */
  execute(name, args, isSystem, depth) {
    this.#assertOpen();
    if (depth >= this.#runtime.limits.depth) {
      throw this.#error(`exceeded max function execution depth of ${this.#runtime.limits.depth}`);
    }
    let script;
    try {
      script = this.#runtime.script(name);
      if (script.definition.isScript) {
        throw new CallError(`function not found: '${name}'`, "FunctionNotFound");
      }
      script.compiled();
      this.#runtime.assertMayExecute(script, this.#request.id, args);
    } catch (error) {
      throw toFunctionError(this.realm, error);
    }
    const result = this.#invoke(script, args, isSystem || script.definition.isSystem === true, depth + 1);
    if (result instanceof this.realm.Promise) {
      this.#operations.addExecuted(result);
    }
    return result;
  }

  /** Returns a value for an encoder, which does not know classes as values. */
  #complete(value) {
    return this.#namesKeys ? withKeys(value) : value;
  }

  /** Sends an operation to the backend. */
  send(isSystem, service, name, args) {
    return this.#runtime.backend.call(this.#request.id, isSystem, service, name, this.#complete(args));
  }

  #begin() {
    this.#assertOpen();
    try {
      this.#operations.begin();
    } catch (error) {
      throw toFunctionError(this.realm, error);
    }
  }

  /** Starts an operation and returns the promise of its result. Both belong to the realm. */
  operation(start) {
    const { convert } = this.realm;
    return this.#counted(start, convert, (error) => toFunctionError(this.realm, error));
  }

  /** Runs a task of the function's own code. Its result and errors already belong to the realm. */
  hold(task) {
    const convertError = (error) => (isCallError(error) ? toFunctionError(this.realm, error) : error);
    return this.#counted(task, (value) => value, convertError);
  }

  #counted(start, convert, convertError) {
    this.#begin();
    return new this.realm.Promise((resolve, reject) => {
      const fail = (error) => {
        reject(convertError(error));
        this.#operations.end();
      };
      const succeed = (value) => {
        try {
          resolve(convert(value));
        } catch (error) {
          return fail(error);
        }
        this.#operations.end();
      };
      try {
        const result = start();
        if (isThenable(result)) {
          result.then(succeed, fail);
        } else {
          succeed(result);
        }
      } catch (error) {
        fail(error);
      }
    });
  }

  /** Runs an operation whose result is returned at once, or its promise if it has none yet. */
  immediate(start) {
    this.#assertOpen();
    let result;
    try {
      result = start();
    } catch (error) {
      throw toFunctionError(this.realm, error);
    }
    return isThenable(result) ? this.operation(() => result) : this.realm.convert(result);
  }

  /** Remembers a promise of a count, which leaves the function as a 64-bit integer. */
  markCount(promise) {
    this.#counts.add(promise);
    return promise;
  }

  isCount(promise) {
    return this.#counts.has(promise);
  }

  toLong(count) {
    return typeof count === "number" ? require("bson").Long.fromNumber(count) : count;
  }

  /** Adds an error that the function does not receive to its lines, or to the log if it ended. */
  reportError(error) {
    if (this.#isEnded) {
      this.#log("warn", "unhandled error after a function call", { error: describe(error) });
    } else {
      this.lines.add("error", `unhandled error: ${describe(error)}`);
    }
  }

  rejected(promise, reason) {
    if (this.#isEnded) {
      this.reportError(reason);
    } else {
      this.#rejections.set(promise, reason);
    }
  }

  handled(promise) {
    this.#rejections.delete(promise);
  }
}

module.exports = { Call };
