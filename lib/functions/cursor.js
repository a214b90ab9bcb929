"use strict";

const { checkCount, checkObject } = require("./arguments.js");
const { CallError } = require("./errors.js");
const { freezeClasses } = require("./frozen.js");

/**
 * The result of `find` or `aggregate`. The documents are read when the function asks for the first
 * one. It has no `then`, so that `await collection.find()` gives the cursor.
 */
class Cursor {
  #source;
  #load;
  #documents = null;
  #position = 0;
  #transforms = [];

  /** `load()` starts the operation and returns the promise of its documents. */
  constructor(source, load) {
    this.#source = source;
    this.#load = load;
  }

  /** Starts the operation if it has not been started. */
  start() {
    this.#documents ??= this.#load();
    return this.#documents;
  }

  /** @throws FunctionError if the cursor has been read */
  assertUnread(method) {
    if (this.#documents !== null) {
      throw this.#source.toError(new CallError(`${method}: the cursor has already been read`));
    }
  }

  #take(documents) {
    const document = documents[this.#position++];
    return this.#transforms.reduce((value, transform) => transform(value), document);
  }

  next() {
    return this.start().then((documents) => (this.#position < documents.length ? this.#take(documents) : undefined));
  }

  hasNext() {
    return this.start().then((documents) => this.#position < documents.length);
  }

  toArray() {
    return this.start().then((documents) => {
      const rest = documents.slice(this.#position);
      const items = this.#transforms.length === 0 ? rest : rest.map(() => this.#take(documents));
      this.#position = documents.length;
      return items;
    });
  }

  forEach(callback) {
    return this.toArray().then((documents) => {
      for (const document of documents) {
        if (callback(document) === false) {
          break;
        }
      }
    });
  }

  map(transform) {
    this.#transforms.push(transform);
    return this;
  }

  close() {
    this.#documents = this.#source.resolved([]);
    return this.#source.resolved(undefined);
  }

  [Symbol.asyncIterator]() {
    return {
      next: () =>
        this.start().then((documents) => {
          const done = this.#position >= documents.length;
          return { done, value: done ? undefined : this.#take(documents) };
        }),
      return: (value) => this.close().then(() => ({ done: true, value })),
    };
  }
}

class FindCursor extends Cursor {
  #source;
  #modifiers;

  /** `load(modifiers)` starts the operation with `sort`, `skip` and `limit`. */
  constructor(source, load) {
    const modifiers = {};
    super(source, () => load(modifiers));
    this.#source = source;
    this.#modifiers = modifiers;
  }

  #set(name, check) {
    this.assertUnread(name);
    this.#modifiers[name] = this.#source.check(check);
    return this;
  }

  sort(order) {
    return this.#set("sort", () => checkObject("sort", "sort", order));
  }

  skip(count) {
    return this.#set("skip", () => checkCount("skip", "skip", count));
  }

  limit(count) {
    return this.#set("limit", () => checkCount("limit", "limit", count));
  }
}

class AggregationCursor extends Cursor {
  #source;
  #modifiers;

  constructor(source, load) {
    const modifiers = { skip: 0 };
    super(source, () => load().then((documents) => documents.slice(modifiers.skip)));
    this.#source = source;
    this.#modifiers = modifiers;
  }

  skip(count) {
    this.assertUnread("skip");
    this.#modifiers.skip = this.#source.check(() => checkCount("skip", "skip", count));
    return this;
  }
}

freezeClasses(Cursor, FindCursor, AggregationCursor);

module.exports = { AggregationCursor, Cursor, FindCursor };
