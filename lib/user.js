"use strict";

const { assert } = require("./assert.js");
const { ApiKeyAuth, PushClient } = require("./auth.js");
const { makeService } = require("./collection.js");
const { Credentials, ProviderType } = require("./credentials.js");
const { Listeners } = require("./listeners.js");

/** The states of a user on this device. */
const UserState = Object.freeze({
  Active: "active",
  LoggedIn: "LoggedIn",
  LoggedOut: "LoggedOut",
  Removed: "Removed",
});

/** A user of an app on this device. Several objects can stand for one user. */
class User {
  #core;
  #handle;
  #id;
  #listeners;
  #profile;

  /** Only an `App` creates users. */
  constructor(core, app, handle, id) {
    this.#core = core;
    this.#handle = handle;
    this.#id = id;
    this.#listeners = new Listeners((listener) => core.listenToUser(handle, listener));
    Object.defineProperty(this, "app", { value: app });
  }

  /** Returns the native handle of a user of the given core. */
  static handle(user, core) {
    if (typeof user !== "object" || user === null || !(#handle in user)) {
      assert.object(user, "user");
      throw new Error("Expected 'user' to be a User");
    }
    if (user.#core !== core) {
      throw Object.assign(new Error("User does not exist"), { code: 4100, errorCode: "ClientUserNotFound" });
    }
    return user.#handle;
  }

  get #view() {
    return this.#core.read("user", this.#handle).v;
  }

  get id() {
    return this.#id;
  }

  get providerType() {
    const type = this.#view.identities[0]?.providerType;
    if (type === undefined) {
      throw new Error("No provider found");
    }
    if (!Object.values(ProviderType).includes(type)) {
      throw new Error(`Unexpected provider type: ${type}`);
    }
    return type;
  }

  get deviceId() {
    return this.#view.deviceId;
  }

  get state() {
    return this.#core.read("userState", this.#handle).v;
  }

  get isLoggedIn() {
    return this.state === UserState.LoggedIn;
  }

  get identities() {
    return this.#view.identities.map(({ id, providerType }) => ({ id, providerType }));
  }

  get accessToken() {
    return this.#view.accessToken;
  }

  get refreshToken() {
    return this.#view.refreshToken;
  }

  get customData() {
    return this.#core.read("customData", this.#handle) ?? {};
  }

  get profile() {
    this.#profile ??= this.#core.read("profile", this.#handle);
    return this.#profile;
  }

  get functions() {
    return makeFunctions(this);
  }

  get apiKeys() {
    return new ApiKeyAuth(this.#core, this.#handle);
  }

  /** The other name of `apiKeys` in the SDK's documentation. */
  get apiKey() {
    return this.apiKeys;
  }

  async logOut() {
    await this.#core.request("logOut", this.#handle);
  }

  async linkCredentials(credentials) {
    await this.#core.request("link", this.#handle, Credentials.parameters(credentials));
  }

  async callFunction(name, ...args) {
    return this.#core.callFunction(this.#handle, undefined, assert.string(name, "name"), { arguments: args });
  }

  async refreshCustomData() {
    await this.#core.request("refreshCustomData", this.#handle);
    return this.customData;
  }

  push(serviceName) {
    return new PushClient(this.#core, this.#handle, serviceName);
  }

  mongoClient(serviceName) {
    assert.string(serviceName, "serviceName");
    if (serviceName === "") {
      throw new Error("Please provide the name of the MongoDB service to connect to.");
    }
    const source = {
      call: (name, args) => this.#core.callFunction(this.#handle, serviceName, name, args),
      watch: (args) => this.#core.watch(this.#handle, serviceName, args),
    };
    return makeService(source, serviceName);
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
}

/**
 * Names that the language, Node.js and test tools read from any object, and whose values they
 * call. `callFunction` can call an app's function with such a name. `realm-web` also reserves
 * "inspect" and the names of `Object.prototype`.
 */
const RESERVED_NAMES = new Set([
  ...Object.getOwnPropertyNames(Object.prototype),
  "_bsontype",
  "asymmetricMatch",
  "hasAttribute",
  "inspect",
  "nodeType",
  "tagName",
  "then",
  "toBSON",
  "toJSON",
]);

/** A function's name. It excludes properties that tools read, such as "$$typeof". */
const FUNCTION_NAME = /^[\p{L}\p{N}_/-]+$/u;

const isFunctionName = (name) => typeof name === "string" && !RESERVED_NAMES.has(name) && FUNCTION_NAME.test(name);

/** Creates the app's functions as methods of an object that has no properties of its own. */
function makeFunctions(user) {
  return new Proxy(
    {},
    {
      get(target, name, receiver) {
        if (isFunctionName(name)) {
          return (...args) => user.callFunction(name, ...args);
        }
        return Reflect.get(target, name, receiver);
      },
    },
  );
}

module.exports = { User, UserState };
