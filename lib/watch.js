"use strict";

/** What ends streams that nobody holds any more. */
const abandoned = new FinalizationRegistry((end) => end());

/**
 * The change events of a collection: an async generator, but one that `return()` ends while somebody waits for the next event
 * (the language's own would only return once that has come). Nothing is followed before the first event is asked for; then it is at
 * once.
 *
 * `begin` makes the stream that it reads: `next()` answers with some events, or with nothing once there are no more, and `end()`
 * ends it.
 */
class ChangeStream {
  #begin;
  #stream;
  #events = [];
  #isDone = false;
  /** The request before, after which the next one has its turn, and how many wait. */
  #turn = Promise.resolve();
  #waiting = 0;

  constructor(begin) {
    this.#begin = begin;
  }

  next() {
    // What is there is given at once, and what is not is asked for before this function returns.
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
