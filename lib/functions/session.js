"use strict";

const { isObject } = require("./arguments.js");
const { CallError } = require("./errors.js");
const { freezeClasses } = require("./frozen.js");

/** The code of the error that a transaction gets when it conflicts with another write. */
const WRITE_CONFLICT = 112;
/** The time in which a transaction is repeated, in milliseconds. */
const DEFAULT_TIME = 60_000;
/** The maximum pause before a transaction is repeated, in milliseconds. */
const LONGEST_PAUSE = 100;

const hasLabel = (error, label) => Array.isArray(error?.errorLabels) && error.errorLabels.includes(label);

/** Returns true if a transaction can succeed when it is repeated. */
const isTransient = (error) =>
  error?.code === WRITE_CONFLICT ||
  error?.serverCode === WRITE_CONFLICT ||
  hasLabel(error, "TransientTransactionError");

/** Waits for a random time, which is longer after each attempt. */
const pause = (attempt) =>
  new Promise((resolve) => {
    setTimeout(resolve, Math.random() * Math.min(2 ** attempt, LONGEST_PAUSE));
  });

/** The state of each session. */
const states = new WeakMap();

/** Returns the transaction that an operation joins through `{ session }`. */
function transactionOf(session, source) {
  if (session === undefined || session === null) {
    return undefined;
  }
  const state = isObject(session) ? states.get(session) : undefined;
  if (state === undefined) {
    throw new CallError('"session" must be a session of the data source', "InvalidParameter");
  }
  if (state.service !== source.service) {
    throw new CallError(`the session belongs to the data source '${state.service}'`, "InvalidParameter");
  }
  if (state.isEnded) {
    throw new CallError("the session has ended");
  }
  return state.transaction?.begin();
}

/**
 * A transaction begins with its first operation, which takes the snapshot, as on MongoDB. One
 * without operations needs no request.
 */
class SessionTransaction {
  #source;
  #number;
  #commit;

  constructor(source) {
    this.#source = source;
  }

  /** Returns the promise of the transaction's number. */
  begin() {
    this.#number ??= this.#source.control("startTransaction").then(({ transaction }) => transaction);
    return this.#number;
  }

  #end(name) {
    if (this.#number === undefined) {
      return this.#source.resolved(undefined);
    }
    return this.#number.then((number) => this.#source.control(name, number)).then(() => undefined);
  }

  /** Commits. A repeated commit returns the result of the first. */
  commit() {
    this.#commit ??= this.#end("commitTransaction");
    return this.#commit;
  }

  abort() {
    return this.#end("abortTransaction");
  }
}

/** A session of a data source. Its transactions begin and end here. */
class ClientSession {
  #source;
  #state;

  /** `source.control(name, transaction)` starts, commits or aborts a transaction. */
  constructor(source) {
    this.#source = source;
    this.#state = { service: source.service, transaction: undefined, committed: undefined, isEnded: false };
    states.set(this, this.#state);
  }

  inTransaction() {
    return this.#state.transaction !== undefined;
  }

  startTransaction() {
    if (this.#state.isEnded) {
      throw this.#source.toError(new CallError("the session has ended"));
    }
    if (this.inTransaction()) {
      throw this.#source.toError(new CallError("Transaction already in progress"));
    }
    this.#state.transaction = new SessionTransaction(this.#source);
    this.#state.committed = undefined;
  }

  commitTransaction() {
    const transaction = this.#state.transaction ?? this.#state.committed;
    if (transaction === undefined) {
      return this.#source.rejected(new CallError("No transaction started"));
    }
    this.#state.transaction = undefined;
    this.#state.committed = transaction;
    return transaction.commit();
  }

  /** Aborts the transaction. A failed `withTransaction` leaves none, so that is no error. */
  abortTransaction() {
    const { transaction } = this.#state;
    this.#state.transaction = undefined;
    return transaction?.abort() ?? this.#source.resolved(undefined);
  }

  endSession() {
    this.#state.isEnded = true;
    return this.abortTransaction();
  }

  withTransaction(callback, _options) {
    return this.#source.hold(() => {
      if (typeof callback !== "function") {
        throw new CallError('withTransaction: "callback" argument must be a function', "InvalidParameter");
      }
      return this.#repeat(callback);
    });
  }

  async #repeat(callback) {
    const end = Date.now() + (this.#source.transactionTime ?? DEFAULT_TIME);
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#attempt(callback);
      } catch (error) {
        if (!isTransient(error) || Date.now() >= end) {
          throw error;
        }
      }
      await pause(attempt);
    }
  }

  async #attempt(callback) {
    this.startTransaction();
    let result;
    try {
      result = await callback(this);
    } catch (error) {
      // The error of the function counts, not one of the abort.
      await this.abortTransaction().then(undefined, () => {});
      throw error;
    }
    if (this.inTransaction()) {
      await this.commitTransaction();
    }
    return result;
  }
}

freezeClasses(ClientSession);

module.exports = { ClientSession, transactionOf };
