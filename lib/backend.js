"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { assert } = require("./assert.js");
const { administer, eventsOf, native, result } = require("./bridge.js");
const { decode, encode } = require("./bson/index.js");
const { callBack } = require("./callbacks.js");
const { AdministeredCollection, makeService } = require("./collection.js");
const { Admin } = require("./admin.js");
const { resolveConfiguration, storeAddress } = require("./configuration.js");
const { openLogged } = require("./handle.js");

/** The interval between two calls of `onProgress`, in milliseconds. */
const PROGRESS_INTERVAL = 100;

/** The number of no user. */
const NO_USER = 0;

/** The operator's handle of a backend: the system user, under no rules. */
class Backend {
  #opened;
  #closing = null;
  #adminApi;

  constructor(opened) {
    this.#opened = opened;
  }

  collection(databaseName, collectionName, { service = "mongodb-atlas" } = {}) {
    const { native: opened } = this.#opened;
    const { bridge, handle } = opened;
    const source = {
      call: (name, args) => {
        this.#assertOpen();
        return result(native.callFunction(bridge, handle, NO_USER, service, name, encode(args)));
      },
      watch: (args) => {
        this.#assertOpen();
        const stream = native.watch(bridge, handle, NO_USER, service, encode(args));
        return eventsOf(opened, stream, () => this.#closing !== null);
      },
    };
    return makeService(source, assert.string(service, "service"), AdministeredCollection)
      .db(databaseName)
      .collection(collectionName);
  }

  get admin() {
    this.#adminApi ??= new Admin((operation, payload) => this.#admin(operation, payload));
    return this.#adminApi;
  }

  async rotateKeys() {
    return this.#admin("rotateKeys");
  }

  async backup(file, options = {}) {
    await this.#admin("backup", { file: path.resolve(assert.string(file, "file")) }, options);
  }

  async export(directory, options = {}) {
    return this.#admin("export", { directory: path.resolve(assert.string(directory, "directory")) }, options);
  }

  async import(directory, options = {}) {
    const { ignoreIndexes = false } = options;
    const payload = { directory: path.resolve(assert.string(directory, "directory")) };
    return this.#admin("import", { ...payload, ignoreIndexes: Boolean(ignoreIndexes) }, options);
  }

  async migrate(to, options = {}) {
    const { ignoreIndexes = false, databases = [] } = options;
    const names = assert.array(databases, "databases").map((name) => assert.string(name, "databases"));
    const address = storeAddress(assert.string(to, "to"), "The target store");
    if (address === "") {
      throw new Error("cannot migrate to a store in memory, which is lost when the process ends");
    }
    const payload = { to: address, databases: names, ignoreIndexes: Boolean(ignoreIndexes) };
    return this.#admin("migrate", payload, options);
  }

  async check(options = {}) {
    return this.#admin("check", { repair: Boolean(options.repair) }, options);
  }

  /** Runs a request of the operator, and reports the progress of a long one. */
  async #admin(operation, payload = {}, { onProgress } = {}) {
    if (onProgress !== undefined) {
      assert.function(onProgress, "onProgress");
    }
    this.#assertOpen();
    const { bridge, handle } = this.#opened.native;
    const report = () => callBack(onProgress, decode(native.read(bridge, handle, "progress", NO_USER)));
    const timer = onProgress && setInterval(report, PROGRESS_INTERVAL);
    try {
      const done = administer(this.#opened.native, operation, payload);
      // A task that is shorter than the interval is reported too.
      if (onProgress) {
        report();
      }
      return await done;
    } finally {
      clearInterval(timer);
    }
  }

  #assertOpen() {
    if (this.#closing) {
      throw new Error("The backend has been closed");
    }
  }

  close() {
    this.#closing ??= this.#opened.close();
    return this.#closing;
  }
}

/** Returns the directory of the definition from the option or the environment. */
const definitionDirectory = (definition) => definition ?? (process.env.USERKEEP_DEFINITION || "userkeep");

/** Returns "directory", "other", or undefined if there is nothing at a path. */
function kindOf(name) {
  try {
    return fs.statSync(name).isDirectory() ? "directory" : "other";
  } catch (error) {
    if (error.code === "ENOENT") {
      return undefined;
    }
    if (error.code === "ENOTDIR") {
      return "other";
    }
    throw error;
  }
}

/**
 * Checks that the directory of a definition exists, if the option or the environment names one.
 */
function checkDefinition(definition) {
  const named = definition ?? (process.env.USERKEEP_DEFINITION || undefined);
  if (typeof named !== "string") {
    return;
  }
  const kind = kindOf(named);
  if (kind !== "directory") {
    const shown = named === "" ? "''" : path.resolve(named);
    throw new Error(
      `the definition ${shown} cannot be read: ${kind ? "it is not a directory" : "there is no such directory"}`,
    );
  }
}

/** Returns the text of a file, or undefined if the file does not exist. */
function readIfExists(file) {
  try {
    // A named pipe or a device could be read for ever.
    return fs.statSync(file).isFile() ? fs.readFileSync(file, "utf8") : undefined;
  } catch (error) {
    if (error.code === "ENOENT") {
      return undefined;
    }
    throw error;
  }
}

/**
 * Returns the app id in a definition, or undefined.
 *
 * @throws if the definition is named and does not exist, or its root file cannot be read
 */
function definedId(definition) {
  checkDefinition(definition);
  const directory = definitionDirectory(definition);
  for (const name of ["root_config.json", "realm_config.json"]) {
    const file = path.resolve(directory, name);
    let root;
    try {
      root = JSON.parse(readIfExists(file)?.replace(/^\ufeff+/, "") ?? "{}");
    } catch (cause) {
      throw new Error(`the app's id cannot be read from ${file}: ${cause.message}`, { cause });
    }
    if (typeof root?.app_id === "string" && root.app_id !== "") {
      return root.app_id;
    }
  }
  return undefined;
}

/**
 * Opens a backend for its operator. Returns the native handle, facts for the log, and a function
 * that closes it. `idOption` is the caller's name of the option for the app's id.
 */
function openNative({ isStoreAlone = false, ...options }, idOption) {
  if (options.definition !== undefined) {
    checkDefinition(options.definition);
  }
  const id = options.id ?? definedId(options.definition);
  if (id === undefined) {
    throw new Error(`The option '${idOption}' is required: the definition has no app_id`);
  }
  const resolved = resolveConfiguration({ ...options, id }, { operator: true, isStoreAlone });
  const { native: configuration, functions, unknown } = resolved;
  const native = { ...configuration, sessionFile: undefined, encryptionKey: undefined };
  const { opened, ...handle } = openLogged({ native, functions, unknown }, options.logger);
  handle.reportOptions();
  return { native: opened, id, ...handle };
}

/** Opens a backend for its operator. */
async function openBackend(options) {
  assert.object(options, "options");
  return new Backend(openNative(options, "id"));
}

/** Opens a store for a task without a definition. Returns the backend and the store's address. */
function openStore(options) {
  const opened = openNative({ ...options, isStoreAlone: true }, "--app");
  return { backend: new Backend(opened), store: opened.store };
}

module.exports = { Backend, checkDefinition, definedId, kindOf, openBackend, openNative, openStore };
