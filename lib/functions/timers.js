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
  /** The number of the call. A timer of a finished call, such as a refreshed one, does nothing. */
  #epoch = 0;
  #isClosed = false;

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
      const epoch = this.#epoch;
      const run = (...args) => {
        if (epoch !== this.#epoch) {
          stop(timer);
          return;
        }
        if (!isRepeated) {
          this.#running.delete(timer);
        }
        guarded(...args);
      };
      const timer = start(run, ...rest);
      if (this.#isClosed) {
        stop(timer);
      } else {
        this.#running.set(timer, stop);
      }
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
    this.#epoch += 1;
    for (const [timer, stop] of this.#running) {
      stop(timer);
    }
    this.#running.clear();
  }

  /** Stops all timers, and those that code of the finished call still starts. */
  close() {
    this.#isClosed = true;
    this.clear();
  }
}

/** Creates the modules `timers` and `timers/promises` from the functions of the global object. */
function timerModules(functions, PromiseClass) {
  /** Returns a promise that a timer resolves and that a signal rejects. */
  const waiting = (start, clear, value, { signal } = {}) =>
    new PromiseClass((resolve, reject) => {
      signal?.throwIfAborted();
      const abort = () => {
        clear(timer);
        reject(signal.reason);
      };
      const timer = start(() => {
        signal?.removeEventListener("abort", abort);
        resolve(value);
      });
      signal?.addEventListener("abort", abort, { once: true });
    });
  const wait = (delay, value, options) =>
    waiting((done) => functions.setTimeout(done, delay), functions.clearTimeout, value, options);
  const yieldOnce = (value, options) => waiting(functions.setImmediate, functions.clearImmediate, value, options);
  const promises = {
    setTimeout: wait,
    setImmediate: yieldOnce,
    async *setInterval(delay, value, options) {
      for (;;) {
        yield await wait(delay, value, options);
      }
    },
    scheduler: { wait: (delay, options) => wait(delay, undefined, options), yield: () => yieldOnce() },
  };
  const { queueMicrotask: _, ...timers } = functions;
  return { timers: { ...timers, promises }, "timers/promises": promises };
}

module.exports = { Timers, timerModules };
