"use strict";

const { checkString } = require("./arguments.js");
const { FunctionCollection } = require("./collection.js");
const { toFunctionError } = require("./errors.js");
const { freezeClasses } = require("./frozen.js");
const { ClientSession, transactionOf } = require("./session.js");

const METHODS = ["get", "post", "put", "patch", "delete", "head"];

/** The operations of one data source for one function. */
class DataSource {
  #call;

  constructor(call, service, isSystem) {
    this.#call = call;
    this.service = service;
    this.isSystem = isSystem;
    this.transactionTime = call.transactionTime;
  }

  #send(name, args) {
    return this.#call.send(this.isSystem, this.service, name, args);
  }

  /** Starts an operation and returns its promise. Errors of the arguments reject it too. */
  run(name, session, makeArguments) {
    return this.#call.operation(() => {
      const args = makeArguments();
      const transaction = transactionOf(session, this);
      if (transaction === undefined) {
        return this.#send(name, args);
      }
      return transaction.then((number) => this.#send(name, { ...args, transaction: number }));
    });
  }

  /** Runs an operation whose result the function gets at once, unless the backend has none yet. */
  runAtOnce(name, args) {
    return this.#call.immediate(() => this.#send(name, args));
  }

  /** Starts, commits or aborts a transaction. */
  control(name, transaction) {
    return this.#call.operation(() => this.#send(name, transaction === undefined ? {} : { transaction }));
  }

  /** Runs a task of several operations, which counts as one open operation itself. */
  hold(task) {
    return this.#call.hold(task);
  }

  startSession() {
    const session = new ClientSession(this);
    this.#call.sessions.push(session);
    return session;
  }

  markCount(promise) {
    return this.#call.markCount(promise);
  }

  resolved(value) {
    return this.#call.realm.Promise.resolve(value);
  }

  rejected(error) {
    return this.#call.realm.Promise.reject(this.toError(error));
  }

  toError(error) {
    return toFunctionError(this.#call.realm, error);
  }

  /** Runs a check whose error the function receives at once. */
  check(check) {
    try {
      return check();
    } catch (error) {
      throw this.toError(error);
    }
  }
}

class FunctionDatabase {
  #source;

  constructor(source, name) {
    this.#source = source;
    Object.defineProperty(this, "name", { value: name, enumerable: true });
  }

  collection(name) {
    const checked = this.#source.check(() => checkString("collection", "name", name));
    return new FunctionCollection(this.#source, this.name, checked);
  }

  getCollectionNames() {
    return this.#source.runAtOnce("getCollectionNames", { database: this.name });
  }
}

/** The client of a data source: `context.services.get("mongodb-atlas")`. */
class DataSourceClient {
  #source;

  constructor(source) {
    this.#source = source;
  }

  db(name) {
    return new FunctionDatabase(
      this.#source,
      this.#source.check(() => checkString("db", "name", name)),
    );
  }

  admin() {
    return { getDBNames: () => this.#source.runAtOnce("getDBNames", {}) };
  }

  startSession() {
    return this.#source.startSession();
  }
}

/** The HTTP client of a call: requests that were begun are finished before the answer. */
function httpClient(call) {
  const client = {};
  for (const method of METHODS) {
    client[method] = (...args) => call.operation(() => call.http[method](...args));
  }
  return client;
}

/** Returns the client of a service, or undefined if there is no such service. */
function serviceClient(call, name, isSystem) {
  const service = call.service(name);
  if (service === undefined) {
    return undefined;
  }
  return service.type === "http" ? httpClient(call) : new DataSourceClient(new DataSource(call, name, isSystem));
}

freezeClasses(FunctionDatabase, DataSourceClient);

module.exports = { httpClient, serviceClient };
