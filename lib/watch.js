"use strict";

/** Ends streams that are garbage collected. */
const abandoned = new FinalizationRegistry((end) => end());

/**
 * The change events of a collection, as an async generator. Unlike a generator function,
 * `return()` ends it at once, even while a call of `next()` is pending. The stream opens with
 * the first call of `next()`, before that call returns.
 *
 * `begin` opens the underlying stream: its `next()` resolves to an array of events, or to
 * undefined at the end, and its `end()` ends it.
 */
class ChangeStream {
  #begin;
  #stream;
  #events = [];
  #isDone = false;
  /** The previous call of `next()`, which the following call waits for. */
  #turn = Promise.resolve();
  /** The number of pending calls. */
  #waiting = 0;

  constructor(begin) {
    this.#begin = begin;
  }

  next() {
    // The first pending call requests its event before this function returns.
    const first = this.#waiting === 0 ? this.#advance() : this.#turn.then(() => this.#advance());
    this.#waiting += 1;
    this.#turn = first
      .catch(() => {})
      .finally(() => {
        this.#waiting -= 1;
      });
    return first;
  }

  async return(value) {
    this.#end();
    return { done: true, value: await value };
  }

  async throw(error) {
    this.#end();
    throw error;
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  async [Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose")]() {
    this.#end();
  }

  get [Symbol.toStringTag]() {
    return "AsyncGenerator";
  }

  async #advance() {
    try {
      while (!this.#isDone && this.#events.length === 0) {
        if (this.#stream === undefined) {
          this.#stream = this.#begin();
          abandoned.register(this, this.#stream.end, this);
        }
        const events = await this.#stream.next();
        if (events === undefined) {
          this.#end();
        } else if (!this.#isDone) {
          this.#events = events;
        }
      }
    } catch (error) {
      const wasDone = this.#isDone;
      this.#end();
      if (!wasDone) {
        throw error;
      }
    }
    return this.#isDone ? { done: true, value: undefined } : { done: false, value: this.#events.shift() };
  }

  #end() {
    if (!this.#isDone) {
      this.#isDone = true;
      this.#events = [];
      abandoned.unregister(this);
      this.#stream?.end();
    }
  }
}

module.exports = { ChangeStream };
