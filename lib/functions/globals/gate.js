"use strict";

/** Creates the error of an operation that was aborted while it waited. */
const aborted = (signal) => signal.reason ?? new Error("aborted");

/** The part of the permits that one user can hold. The others stay free for other users. */
const SHARE_OF_ONE = 0.8;

/**
 * Limits how many operations run at the same time. The others wait for their turn: the user with
 * the fewest running operations is next.
 *
 * Several `makeHttp` can share one gate, for one limit of a worker's sockets.
 */
class Gate {
  #free;
  #share;
  /** The waiting operations: functions that begin them, with their users. */
  #waiting = new Map();
  /** The numbers of running operations by user. */
  #running = new Map();

  constructor(permits) {
    this.#free = permits;
    this.#share = Math.max(Math.floor(permits * SHARE_OF_ONE), 1);
  }

  /**
   * Runs an operation when a permit is free, and releases the permit when the operation has ended.
   * `user` identifies the user whose share it counts to, if there is one.
   *
   * @throws the signal's reason if it is aborted before the operation has begun
   */
  async run(operation, signal, user) {
    if (signal?.aborted) {
      throw aborted(signal);
    }
    if (this.#mayRun(user)) {
      this.#begin(user);
    } else {
      await this.#turn(signal, user);
    }
    try {
      return await operation();
    } finally {
      this.#release(user);
    }
  }

  #countOf(user) {
    return this.#running.get(user) ?? 0;
  }

  #mayRun(user) {
    return this.#free > 0 && (user === undefined || this.#countOf(user) < this.#share);
  }

  #begin(user) {
    this.#free -= 1;
    this.#running.set(user, this.#countOf(user) + 1);
  }

  #turn(signal, user) {
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting.delete(enter);
        reject(aborted(signal));
      };
      const enter = () => {
        signal?.removeEventListener("abort", leave);
        resolve();
      };
      this.#waiting.set(enter, user);
      signal?.addEventListener("abort", leave, { once: true });
    });
  }

  #release(user) {
    this.#free += 1;
    const count = this.#countOf(user) - 1;
    if (count > 0) {
      this.#running.set(user, count);
    } else {
      this.#running.delete(user);
    }
    this.#next();
  }

  /** Passes a free permit on. */
  #next() {
    let next;
    for (const [enter, user] of this.#waiting) {
      if (this.#mayRun(user) && (next === undefined || this.#countOf(user) < this.#countOf(next.user))) {
        next = { enter, user };
      }
    }
    if (next !== undefined) {
      this.#waiting.delete(next.enter);
      this.#begin(next.user);
      next.enter();
    }
  }
}

module.exports = { Gate };
