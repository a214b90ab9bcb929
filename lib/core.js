"use strict";

const { beforeSettling, closeHandle, eventsOf, listenToLog, native, openHandle, result } = require("./bridge.js");
const { encode } = require("./bson/index.js");
const { callBack } = require("./callbacks.js");
const { KNOWN_KEYS, resolveConfiguration, withoutPassword } = require("./configuration.js");
const { makeLogger } = require("./logger.js");
const { didYouMean } = require("./suggest.js");

const NO_PARAMETERS = Buffer.from(encode({}));
const NO_USER = 0;
const APP_EVENT = -1;

/** The open cores that further apps share, by their names: the app's id where something is kept under it. */
const sharedCores = new Map();

/** All open cores, for shutdown. */
const openCores = new Set();

/** An open app: what the JavaScript `App`s of one id have in common, and their way to the native side. */
class Core {
  /** Who hears of changes: `App`s, and by their handle, `User`s. */
  #appListeners = new Set();
  #userListeners = new Map();
  #users = 1;
  #closing = null;
  #opened;
  #stopLogging;
  #shared;

  constructor(config, { native: configuration, shared, unknown }) {
    const log = makeLogger(config.logger);
    const opened = openHandle(configuration);
    this.#opened = opened;
    this.id = config.id;
    this.#shared = shared;
    const { baseUrl, store } = configuration;
    this.baseUrl = baseUrl;
    log(
      "info",
      baseUrl === undefined
        ? `app '${config.id}' runs ${opened.origin} on the store ${withoutPassword(store || "memory")}`
        : `app '${config.id}' uses the backend at ${baseUrl}`,
    );
    if (opened.definitionAppId && opened.definitionAppId !== config.id) {
      log("warn", `the definition is of the app '${opened.definitionAppId}'; it is run as '${config.id}'`);
    }
    if (baseUrl !== undefined && config.fetch !== undefined) {
      log("warn", "the configuration's 'fetch' is not used: requests are made natively");
    }
    for (const key of unknown) {
      log("warn", `the configuration's key '${key}' is not known and not used${didYouMean(key, KNOWN_KEYS)}`);
    }
    for (const problem of opened.reported) {
      log("warn", problem);
    }
    this.flush = this.flush.bind(this);
    beforeSettling.add(this.flush);
    this.#stopLogging = listenToLog(log);
    openCores.add(this);
    if (shared) {
      sharedCores.set(shared.name, this);
    }
  }

  /** The core for a configuration: a new one, or the one that is open with the same settings. */
  static open(config) {
    const resolved = resolveConfiguration(config);
    const existing = resolved.shared && sharedCores.get(resolved.shared.name);
    if (!existing) {
      return new Core(config, resolved);
    }
    if (existing.#shared.settings !== resolved.shared.settings) {
      throw new Error(`The app '${config.id}' is open with other settings. Close it first: await app.close()`);
    }
    return existing.join();
  }

  /** Shares the core with one more app. */
  join() {
    this.#users += 1;
    return this;
  }

  /** Does what the native side calls `operation`. */
  request(operation, user = NO_USER, parameters = undefined) {
    this.#assertOpen();
    const payload = parameters === undefined ? NO_PARAMETERS : encode(parameters);
    const { bridge, handle } = this.#opened;
    let started;
    try {
      started = native.request(bridge, handle, operation, user, payload);
    } finally {
      // The native side has copied them, and they may hold a password.
      if (payload !== NO_PARAMETERS) {
        payload.fill(0);
      }
    }
    // What was done at once has been heard of before the caller goes on.
    this.#flush(false);
    return result(started);
  }

  callFunction(user, service, name, args) {
    this.#assertOpen();
    const { bridge, handle } = this.#opened;
    return result(native.callFunction(bridge, handle, user, service, name, encode(args)));
  }

  /** Begins to follow a collection of a data source. */
  watch(user, service, args) {
    this.#assertOpen();
    const { bridge, handle } = this.#opened;
    const stream = native.watch(bridge, handle, user, service, encode(args));
    return eventsOf(this.#opened, stream, () => this.isClosed);
  }

  /** Reads what the native side knows, without waiting. */
  read(name, ...args) {
    this.#assertOpen();
    const { bridge, handle } = this.#opened;
    return native[name](bridge, handle, ...args);
  }

  switchUser(user) {
    this.read("switchUser", user);
    this.flush();
  }

  /** Tells listeners all that has happened. */
  flush() {
    this.#flush(true);
  }

  #flush(all) {
    const { bridge, handle } = this.#opened;
    for (const event of native.takeEvents(bridge, handle, all)) {
      const listeners = event === APP_EVENT ? this.#appListeners : this.#userListeners.get(event);
      for (const listener of listeners ? [...listeners] : []) {
        callBack(listener);
      }
    }
  }

  listenToApp(listener) {
    this.#appListeners.add(listener);
    return () => this.#appListeners.delete(listener);
  }

  listenToUser(user, listener) {
    const listeners = this.#userListeners.get(user) ?? new Set();
    this.#userListeners.set(user, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0) {
        this.#userListeners.delete(user);
      }
    };
  }

  get isClosed() {
    return this.#closing !== null;
  }

  #assertOpen() {
    if (this.#closing) {
      throw new Error("The app has been closed");
    }
  }

  /** Lets go of the core for one app; the last one closes it. */
  release() {
    this.#users -= 1;
    return this.#users === 0 ? this.close() : Promise.resolve();
  }

  close() {
    if (!this.#closing) {
      beforeSettling.delete(this.flush);
      this.#stopLogging();
      openCores.delete(this);
      if (this.#shared && sharedCores.get(this.#shared.name) === this) {
        sharedCores.delete(this.#shared.name);
      }
      this.#closing = closeHandle(this.#opened);
    }
    return this.#closing;
  }
}

/** Closes every app that is open in this thread. */
async function closeAll() {
  await Promise.all([...openCores].map((core) => core.close()));
}

module.exports = { Core, closeAll };
