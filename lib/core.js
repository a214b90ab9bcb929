"use strict";

const { beforeSettling, eventsOf, native, result } = require("./bridge.js");
const { decode, decodeResult, encode } = require("./bson/index.js");
const { callBack } = require("./callbacks.js");
const { resolveConfiguration } = require("./configuration.js");
const { openLogged } = require("./handle.js");

const NO_PARAMETERS = Buffer.from(encode({}));
const NO_USER = 0;
const APP_EVENT = -1;

/** The open cores that other apps can share, by name: usually the app's id. */
const sharedCores = new Map();

/** All open cores, for `shutdown()`. */
const openCores = new Set();

/** An open app in the addon, which the `App` objects of one id share. */
class Core {
  /** The listeners of `App`s. */
  #appListeners = new Set();
  /** The listeners of `User`s, by the user's handle. */
  #userListeners = new Map();
  /** The number of `App`s that share the core. */
  #users = 1;
  #closing = null;
  #opened;
  #close;
  #shared;

  constructor(config, resolved) {
    const { opened, store, log, reportOptions, reportDefinition, close } = openLogged(resolved, config.logger);
    this.#opened = opened;
    this.#close = close;
    this.id = config.id;
    this.#shared = resolved.shared;
    const { baseUrl } = resolved.native;
    this.baseUrl = baseUrl;
    log(
      "info",
      baseUrl === undefined
        ? `app '${config.id}' runs ${opened.origin} on the store ${store}`
        : `app '${config.id}' uses the backend at ${baseUrl}`,
    );
    if (opened.definitionAppId && opened.definitionAppId !== config.id) {
      log("warn", `the definition belongs to the app '${opened.definitionAppId}' and runs as '${config.id}'`);
    }
    if (baseUrl !== undefined && config.fetch !== undefined) {
      log("warn", "the option 'fetch' has no effect: the addon makes the requests");
    }
    reportOptions();
    reportDefinition();
    this.flush = this.flush.bind(this);
    beforeSettling.add(this.flush);
    openCores.add(this);
    if (this.#shared) {
      sharedCores.set(this.#shared.name, this);
    }
  }

  /**
   * Returns the core for a configuration: the one that is open with its settings, or a new one.
   */
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

  /** Returns the open core of an app's id: the one that was opened first. */
  static ofId(id) {
    return [...openCores].find((core) => core.id === id);
  }

  /** Shares the core with one more app. */
  join() {
    this.#users += 1;
    return this;
  }

  /** Runs an operation of the addon. */
  request(operation, user = NO_USER, parameters = undefined) {
    this.#assertOpen();
    const payload = parameters === undefined ? NO_PARAMETERS : encode(parameters);
    const { bridge, handle } = this.#opened;
    let started;
    try {
      started = native.request(bridge, handle, operation, user, payload);
    } finally {
      // The addon has a copy of the parameters, which can contain a password.
      if (payload !== NO_PARAMETERS) {
        payload.fill(0);
      }
    }
    // If the operation is already complete, its listeners run before the caller continues.
    this.#flush(false);
    return result(started);
  }

  callFunction(user, service, name, args) {
    this.#assertOpen();
    const { bridge, handle } = this.#opened;
    const started = native.callFunction(bridge, handle, user, service, name, encode(args));
    return result(started, service === undefined ? decodeResult : decode);
  }

  /** Opens a change stream of a collection. */
  watch(user, service, args) {
    this.#assertOpen();
    const { bridge, handle } = this.#opened;
    const stream = native.watch(bridge, handle, user, service, encode(args));
    return eventsOf(this.#opened, stream, () => this.isClosed);
  }

  /** Reads the state on this device, without waiting. Returns undefined if there is none. */
  read(what, user = NO_USER) {
    this.#assertOpen();
    const { bridge, handle } = this.#opened;
    const bytes = native.read(bridge, handle, what, user);
    return bytes ? decode(bytes) : undefined;
  }

  switchUser(user) {
    this.request("switchUser", user);
    // Other threads may have caused events too.
    this.flush();
  }

  /** Calls the listeners of all pending events. */
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

  /** Releases the core for one app. The last app closes it. */
  release() {
    this.#users -= 1;
    return this.#users === 0 ? this.close() : Promise.resolve();
  }

  close() {
    if (!this.#closing) {
      beforeSettling.delete(this.flush);
      openCores.delete(this);
      if (this.#shared && sharedCores.get(this.#shared.name) === this) {
        sharedCores.delete(this.#shared.name);
      }
      this.#closing = this.#close();
    }
    return this.#closing;
  }
}

/** Closes every app that is open in this thread. */
async function closeAll() {
  await Promise.all([...openCores].map((core) => core.close()));
}

module.exports = { Core, closeAll };
