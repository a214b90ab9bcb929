"use strict";

const { promisify } = require("node:util");

/**
 * The timers of a context. `report(error)` receives the errors of their callbacks, which would
 * otherwise end the thread.
 */
class Timers {
  /** The functions that stop the running timers. */
  #running = new Map();
  #report;

  constructor(report) {
    this.#report = report;
  }

  /** Returns a callback that reports its errors. */
  guarded(callback) {
    return (...args) => {
      try {
        callback(...args);
      } catch (error) {
        this.#report(error);
      }
    };
  }

  #start(start, stop, isRepeated) {
    return (callback, ...rest) => {
      if (typeof callback !== "function") {
        throw new TypeError('The "callback" argument must be of type function');
      }
      const guarded = this.guarded(callback);
      const run = (...args) => {
        if (!isRepeated) {
          this.#running.delete(timer);
        }
        guarded(...args);
      };
      const timer = start(run, ...rest);
      this.#running.set(timer, stop);
      return timer;
    };
  }

  /** Returns the functions of the global object. `PromiseClass` is the realm's. */
  functions(PromiseClass) {
    const clear = (stop) => (timer) => {
      this.#running.delete(timer);
      stop(timer);
    };
    const timeout = this.#start(setTimeout, clearTimeout, false);
    timeout[promisify.custom] = (delay, value) => new PromiseClass((resolve) => timeout(resolve, delay, value));
    const immediate = this.#start(setImmediate, clearImmediate, false);
    immediate[promisify.custom] = (value) => new PromiseClass((resolve) => immediate(resolve, value));
    return {
      setTimeout: timeout,
      setInterval: this.#start(setInterval, clearInterval, true),
      setImmediate: immediate,
      clearTimeout: clear(clearTimeout),
      clearInterval: clear(clearInterval),
      clearImmediate: clear(clearImmediate),
      queueMicrotask: (callback) => queueMicrotask(this.guarded(callback)),
    };
  }

  /** Stops all timers. */
  clear() {
    for (const [timer, stop] of this.#running) {
      stop(timer);
    }
    this.#running.clear();
  }
}

module.exports = { Timers };
