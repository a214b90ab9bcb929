"use strict";

const { assert } = require("./assert.js");
const { EmailPasswordAuth } = require("./auth.js");
const { Core } = require("./core.js");
const { Credentials } = require("./credentials.js");
const { makeSync } = require("./database.js");
const { Listeners } = require("./listeners.js");
const { User } = require("./user.js");

/** The apps of each open core, for `App.get`, as weak references. */
const appsByCore = new WeakMap();

/** An app: its backend and its users on this device. */
class App {
  #core;
  #listeners;
  #isClosed = false;

  static Credentials = Credentials;
  static Sync = makeSync();

  static get(id) {
    assert.string(id, "id");
    return App.#appsOf(Core.ofId(id))[0]?.deref() ?? new App(id);
  }

  /** Returns the references to the apps of a core that are in use, the oldest first. */
  static #appsOf(core) {
    return (appsByCore.get(core) ?? []).filter((app) => app.deref()?.#isClosed === false);
  }

  static getApp(id) {
    return App.get(id);
  }

  constructor(configOrId) {
    const config = typeof configOrId === "string" ? { id: configOrId } : configOrId;
    assert.object(config, "config");
    // An id alone has no settings: it selects the open app.
    const joined = typeof configOrId === "string" ? Core.ofId(configOrId)?.join() : undefined;
    this.#core = joined ?? Core.open(config);
    this.#listeners = new Listeners((listener) => this.#core.listenToApp(listener));
    appsByCore.set(this.#core, [...App.#appsOf(this.#core), new WeakRef(this)]);
  }

  get id() {
    return this.#core.id;
  }

  /** The backend's URL, without a trailing slash; empty if the backend is in this process. */
  get baseUrl() {
    return this.#core.baseUrl ?? "";
  }

  set baseUrl(_) {
    throw new Error("Cannot assign the base URL, please use 'updateBaseUrl()'.");
  }

  async updateBaseUrl(newUrl) {
    const url = newUrl === null ? "" : assert.string(newUrl, "newUrl").replace(/\/+$/, "");
    if (url !== this.baseUrl) {
      throw new Error("the base URL of an open app cannot change: close the app and open it with the option 'baseUrl'");
    }
  }

  get emailPasswordAuth() {
    return new EmailPasswordAuth(this.#core);
  }

  get currentUser() {
    const entry = this.#read("currentUser");
    return entry ? this.#user(entry) : null;
  }

  get allUsers() {
    const users = this.#read("allUsers").map((entry) => [entry.id, this.#user(entry)]);
    return Object.fromEntries(users);
  }

  async logIn(credentials) {
    const parameters = Credentials.parameters(credentials);
    this.#assertOpen();
    return this.#user(await this.#core.request("logIn", undefined, parameters));
  }

  switchUser(user) {
    this.#assertOpen();
    this.#core.switchUser(User.handle(user, this.#core));
  }

  async removeUser(user) {
    this.#assertOpen();
    await this.#core.request("removeUser", User.handle(user, this.#core));
  }

  async deleteUser(user) {
    this.#assertOpen();
    await this.#core.request("deleteUser", User.handle(user, this.#core));
  }

  addListener(callback) {
    this.#listeners.add(callback);
  }

  removeListener(callback) {
    this.#listeners.remove(callback);
  }

  removeAllListeners() {
    this.#listeners.removeAll();
  }

  async close() {
    if (!this.#isClosed) {
      this.#isClosed = true;
      this.#listeners.removeAll();
      await this.#core.release();
    }
  }

  #user({ handle, id }) {
    return new User(this.#core, this, handle, id);
  }

  #read(name) {
    this.#assertOpen();
    return this.#core.read(name)?.v;
  }

  #assertOpen() {
    if (this.#isClosed) {
      throw new Error("The app has been closed");
    }
  }
}

module.exports = { App };
