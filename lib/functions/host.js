"use strict";

// Runs the functions of backends on this thread.

const { parentPort, workerData } = require("node:worker_threads");
const { holdBridge, native, receiveFunctions, result } = require("../bridge.js");
const { decode, encode, encodeWithUndefined } = require("../bson/index.js");
const { describe, toFailure } = require("./errors.js");
const { measured } = require("./memory.js");
const { Runtime } = require("./runtime.js");

/** The hosts of this thread, by the number of the backend. */
const hosts = new Map();

/** Formats the fields of a log entry. */
const texts = (fields) => Object.entries(fields).map(([name, value]) => `${name}=${JSON.stringify(value)}`);

/** A backend whose functions this thread runs. */
class FunctionHost {
  #bridge;
  #number;
  #release;
  /** The runtimes by the number of their definition: the newest, and older ones with calls. */
  #runtimes = new Map();
  /** The number of the newest definition. */
  #newest;
  /** The runtimes of the calls under way, by the number of the call. */
  #running = new Map();

  /** The report of a call whose report cannot be made. */
  #broken = Buffer.from(encode({ error: { message: "the thread of the function is broken" } }));

  constructor({ bridge, release }, number, facts) {
    this.#release = release;
    this.#bridge = bridge;
    this.#number = number;
    this.#newest = facts.generation;
    this.#runtimes.set(facts.generation, this.#makeRuntime(facts));
  }

  #makeRuntime(facts) {
    const [bridge, number] = [this.#bridge, this.#number];
    return new Runtime({
      ...facts,
      backend: {
        call: (call, isSystem, service, name, args) => this.#call(call, isSystem, service, name, args),
        mayExecute: (call, name, args) => native.mayExecute(bridge, number, call, name, encode({ arguments: args })),
      },
      log: (level, { message, ...fields }) => native.logOfFunction(level, [message, ...texts(fields)].join(" ")),
    });
  }

  /** Returns the runtime with the definition of a call. A reloaded definition has a new one. */
  #runtimeOf(generation, id) {
    // A call that waited longer can have an older definition than those before it.
    let runtime = this.#runtimes.get(generation);
    if (runtime === undefined) {
      runtime = this.#makeRuntime(decode(native.functionFacts(this.#bridge, this.#number, id)));
      this.#runtimes.set(generation, runtime);
      this.#newest = Math.max(this.#newest, generation);
    }
    return runtime;
  }

  /** Removes the runtimes of older definitions that no call uses. */
  #removeUnused() {
    const used = new Set(this.#running.values());
    for (const [generation, runtime] of this.#runtimes) {
      if (generation !== this.#newest && !used.has(runtime)) {
        this.#runtimes.delete(generation);
      }
    }
  }

  #call(call, isSystem, service, name, args) {
    return result(native.callInFunction(this.#bridge, this.#number, call, isSystem, service, name, encode(args)));
  }

  /** Runs a call and reports its result. */
  async run(id, payload) {
    let bytes;
    try {
      bytes = encoded(await this.#reported(id, payload));
    } catch {
      // A thread in which even the report of a failure fails is broken for all calls.
      native.functionDone(this.#bridge, this.#number, id, this.#broken);
      endThread();
      return;
    }
    native.functionDone(this.#bridge, this.#number, id, bytes);
  }

  async #reported(id, payload) {
    try {
      const { generation, ...request } = decode(payload);
      const runtime = this.#runtimeOf(generation, id);
      this.#running.set(id, runtime);
      return await measured(() => runtime.run({ id, ...request }));
    } catch (failure) {
      return failed(failure);
    } finally {
      this.#running.delete(id);
      if (this.#runtimes.size > 1) {
        this.#removeUnused();
      }
    }
  }

  /** Releases the bridge, which keeps the process alive. */
  release() {
    this.#release();
  }

  /** Ends a call whose result the backend does not want any more. */
  cancel(id) {
    this.#running.get(id)?.cancel(id);
  }
}

/** Ends this thread, unless it is that of the application. */
function endThread() {
  if (parentPort !== null && workerData?.host !== undefined) {
    process.exit(1);
  }
}

/** Returns the report of a failed call. `failure` can be any value. */
function failed(failure) {
  const { message, errorCode, serverCode, functionStack: stack, messages, dropped } = toFailure(failure);
  return { error: { message, errorCode, serverCode, stack }, messages, dropped };
}

/** Encodes a report. A result that cannot be encoded becomes an error. Never throws. */
function encoded(report) {
  try {
    return report.error ? encode(report) : encodeWithUndefined(report);
  } catch (error) {
    const { messages, dropped } = report;
    const message = `the result cannot be returned: ${describe(error)}`;
    return encode({ error: { message }, messages, dropped });
  }
}

/** Lets this thread run the functions of a backend. Returns false if it is not wanted any more. */
function attach(number, host) {
  const held = holdBridge();
  const facts = native.attachFunctions(held.bridge, number, host);
  if (!facts) {
    held.release();
    return false;
  }
  detach(number);
  hosts.set(number, new FunctionHost(held, number, decode(facts)));
  return true;
}

/** Forgets a backend whose functions this thread ran. */
function detach(number) {
  hosts.get(number)?.release();
  hosts.delete(number);
}

receiveFunctions({
  call: ({ backend, id, payload }) => {
    const host = hosts.get(backend);
    return payload ? host?.run(id, payload) : host?.cancel(id);
  },
});

module.exports = { attach, detach };
