"use strict";

/** Creates the error of an operation that was aborted while it waited. */
const aborted = (signal) => signal.reason ?? new Error("aborted");

/**
 * Limits how many operations run at the same time. The others wait for their turn.
 *
 * Several `makeHttp` can share one gate, for one limit of a worker's sockets.
 */
class Gate {
  #free;
  #waiting = new Set();

  constructor(permits) {
    this.#free = permits;
  }

  /**
   * Runs an operation when a permit is free, and releases the permit when the operation has ended.
   *
   * @throws the signal's reason if it is aborted before the operation has begun
   */
  async run(operation, signal) {
    if (signal?.aborted) {
      throw aborted(signal);
    }
    if (this.#free > 0) {
      this.#free -= 1;
    } else {
      await this.#turn(signal);
    }
    try {
      return await operation();
    } finally {
      this.#release();
    }
  }

  #turn(signal) {
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting.delete(enter);
        reject(aborted(signal));
      };
      const enter = () => {
        signal?.removeEventListener("abort", leave);
        resolve();
      };
      this.#waiting.add(enter);
      signal?.addEventListener("abort", leave, { once: true });
    });
  }

  /** Passes the permit to the operation that has waited the longest. */
  #release() {
    for (const enter of this.#waiting) {
      this.#waiting.delete(enter);
      enter();
      return;
    }
    this.#free += 1;
  }
}

module.exports = { Gate };
