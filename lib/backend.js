"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { assert } = require("./assert.js");
const { closeHandle, eventsOf, listenToLog, native, openHandle, result } = require("./bridge.js");
const { encode } = require("./bson/index.js");
const { callBack } = require("./callbacks.js");
const { AdministeredCollection, makeService } = require("./collection.js");
const { KNOWN_KEYS, resolveConfiguration, storeAddress, withoutPassword } = require("./configuration.js");
const { makeLogger } = require("./logger.js");
const { didYouMean } = require("./suggest.js");

/** How often is told how far something is, in milliseconds. */
const PROGRESS_INTERVAL = 100;

/** The operator's handle: the system user, under no rules. */
class Backend {
  #opened;
  #closing = null;

  constructor(opened) {
    this.#opened = opened;
  }

  collection(databaseName, collectionName, { service = "mongodb-atlas" } = {}) {
    const { native: opened } = this.#opened;
    const { bridge, handle } = opened;
    const source = {
      call: (name, args) => {
        this.#assertOpen();
        return result(native.callAsSystem(bridge, handle, service, name, encode(args)));
      },
      watch: (args) => {
        this.#assertOpen();
        const stream = native.watchAsSystem(bridge, handle, service, encode(args));
        return eventsOf(opened, stream, () => this.#closing !== null);
      },
    };
    return makeService(source, assert.string(service, "service"), AdministeredCollection)
      .db(databaseName)
      .collection(collectionName);
  }

  async rotateKeys() {
    this.#assertOpen();
    const { bridge, handle } = this.#opened.native;
    return result(native.rotateKeys(bridge, handle));
  }

  async backup(file, options = {}) {
    assert.string(file, "file");
    await this.#long(options, (bridge, handle) => native.backup(bridge, handle, path.resolve(file)));
  }

  async export(directory, options = {}) {
    assert.string(directory, "directory");
    return this.#long(options, (bridge, handle) => native.exportDump(bridge, handle, path.resolve(directory)));
  }

  async import(directory, options = {}) {
    assert.string(directory, "directory");
    const { ignoreIndexes = false } = options;
    return this.#long(options, (bridge, handle) =>
      native.importDump(bridge, handle, path.resolve(directory), Boolean(ignoreIndexes)),
    );
  }

  async migrate(to, options = {}) {
    const { ignoreIndexes = false, databases = [] } = options;
    const names = assert.array(databases, "databases").map((name) => assert.string(name, "databases"));
    const address = storeAddress(assert.string(to, "to"), "The other store");
    if (address === "") {
      throw new Error("What is carried to a store in memory would be gone at once");
    }
    return this.#long(options, (bridge, handle) =>
      native.migrateStore(bridge, handle, address, names, Boolean(ignoreIndexes)),
    );
  }

  async check(options = {}) {
    return this.#long(options, (bridge, handle) => native.checkStore(bridge, handle, Boolean(options.repair)));
  }

  /** Does what takes long, and says now and then how far it is. */
  async #long({ onProgress }, begin) {
    if (onProgress !== undefined) {
      assert.function(onProgress, "onProgress");
    }
    this.#assertOpen();
    const { bridge, handle } = this.#opened.native;
    const tell = () => callBack(onProgress, native.progress(bridge, handle));
    const timer = onProgress && setInterval(tell, PROGRESS_INTERVAL);
    try {
      const done = result(begin(bridge, handle));
      // Also of what is done before it would be told of for the first time.
      if (onProgress) {
        tell();
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

/** The directory of the definition that the option, or the environment, names. */
const definitionDirectory = (definition) => definition ?? (process.env.USERKEEP_DEFINITION || "userkeep");

/** The app id that a definition carries. */
function definedId(definition) {
  const directory = definitionDirectory(definition);
  for (const name of ["root_config.json", "realm_config.json"]) {
    try {
      const file = path.join(directory, name);
      // A named pipe or a device could be read for ever.
      if (!fs.statSync(file).isFile()) {
        continue;
      }
      const { app_id: id } = JSON.parse(fs.readFileSync(file, "utf8"));
      if (typeof id === "string" && id !== "") {
        return id;
      }
    } catch {
      // Loading the definition says what is wrong with it.
    }
  }
  return undefined;
}

/**
 * Opens a backend as its operator: the native handle, what there is to say about it, and how to let go of it. `idOption` is how the caller
 * names the option for the app's id.
 */
function openNative({ isStoreAlone = false, ...options }, idOption) {
  const id = options.id ?? definedId(options.definition);
  if (id === undefined) {
    throw new Error(`The option '${idOption}' is needed, the id of the app: the definition does not have one`);
  }
  const { native: configuration, unknown } = resolveConfiguration({ ...options, id }, { operator: true, isStoreAlone });
  const log = makeLogger(options.logger);
  for (const key of unknown) {
    log("warn", `the option '${key}' is not known and not used${didYouMean(key, KNOWN_KEYS)}`);
  }
  const opened = openHandle({ ...configuration, sessionFile: undefined, encryptionKey: undefined });
  const { origin, reported, allowsAnyOrigin } = opened;
  const stopLogging = listenToLog(log);
  const close = async () => {
    await closeHandle(opened);
    stopLogging();
  };
  const store = withoutPassword(configuration.store || "memory");
  return { native: opened, id, origin, reported, allowsAnyOrigin, log, store, close };
}

/** Opens a backend as its operator. */
async function openBackend(options) {
  assert.object(options, "options");
  return new Backend(openNative(options, "id"));
}

/** Opens a store for a task that needs no definition. Returns the backend and the store's file or address. */
function openStore(options) {
  const opened = openNative({ ...options, isStoreAlone: true }, "--app");
  return { backend: new Backend(opened), store: opened.store };
}

module.exports = { Backend, definedId, openBackend, openNative, openStore };
