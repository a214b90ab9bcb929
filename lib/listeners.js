"use strict";

const { assert } = require("./assert.js");

/** The callbacks of one object. Each can be removed. */
class Listeners {
  #remove = new Map();
  #listen;

  /** `listen` subscribes a callback and returns a function that unsubscribes it. */
  constructor(listen) {
    this.#listen = listen;
  }

  add(callback) {
    assert.function(callback, "callback");
    if (this.#remove.has(callback)) {
      throw new Error("Remove callback before adding it again");
    }
    this.#remove.set(
      callback,
      this.#listen(() => callback()),
    );
  }

  remove(callback) {
    this.#remove.get(callback)?.();
    this.#remove.delete(callback);
  }

  removeAll() {
    for (const remove of this.#remove.values()) {
      remove();
    }
    this.#remove.clear();
  }
}

module.exports = { Listeners };
