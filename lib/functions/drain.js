"use strict";

const { CallError } = require("./errors.js");

/** Waits until all microtasks have run: Node processes its ticks when there are none left. */
const tick = () =>
  new Promise((resolve) => {
    process.nextTick(resolve);
  });

/** Waits until Node has reported the rejections that were not handled. */
const turn = () =>
  new Promise((resolve) => {
    setImmediate(resolve);
  });

const ignore = () => {};

/** Counts the open operations of a call, and waits until there are none. */
class OpenOperations {
  #limit;
  #open = 0;
  #wake = ignore;
  #executed = [];
  /** The error of too many open operations. The call fails with it even if it was caught. */
  overflow = null;

  constructor(limit) {
    this.#limit = limit;
  }

  /** @throws CallError if there are too many */
  begin() {
    if (this.#open >= this.#limit) {
      this.overflow ??= new CallError(`exceeded max async work queue size of ${this.#limit}`);
      throw this.overflow;
    }
    this.#open += 1;
  }

  end() {
    this.#open -= 1;
    if (this.#open === 0) {
      this.#wake();
    }
  }

  /** Adds a promise of `context.functions.execute`, which is finished like an operation. */
  addExecuted(promise) {
    this.#executed.push(promise);
  }

  #isIdle() {
    return this.#open === 0
      ? undefined
      : new Promise((resolve) => {
          this.#wake = resolve;
        });
  }

  /**
   * Waits for the promises of executed functions. A handler marks a rejection as handled, so
   * those that nothing has handled yet are reported first.
   */
  async #watchExecuted(report, isReported) {
    await turn();
    let isSettledBefore = true;
    for (const promise of this.#executed.splice(0).filter((executed) => !isReported(executed))) {
      this.#open += 1;
      const rejected = (error) => {
        if (!isSettledBefore) {
          report(error);
        }
        this.end();
      };
      promise.then(() => this.end(), rejected);
    }
    await tick();
    isSettledBefore = false;
  }

  /**
   * Waits until no operation is open and none can begin. `report(error)` receives rejections,
   * except those of promises for which `isReported(promise)` returns true.
   */
  async drain(report, isReported) {
    await tick();
    const hasRejections = this.#open > 0 || this.#executed.length > 0;
    while (this.#open > 0 || this.#executed.length > 0) {
      if (this.#executed.length > 0) {
        await this.#watchExecuted(report, isReported);
      }
      await this.#isIdle();
      // The function continues when an operation ends, and can begin the next one.
      await tick();
    }
    if (hasRejections) {
      await turn();
    }
  }
}

module.exports = { OpenOperations, turn };
