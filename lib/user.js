"use strict";

const { assert } = require("./assert.js");
const { ApiKeyAuth, PushClient } = require("./auth.js");
const { decode } = require("./bson/index.js");
const { makeService } = require("./collection.js");
const { Credentials, ProviderType } = require("./credentials.js");
const { Listeners } = require("./listeners.js");

/** Whether a user can make requests. */
const UserState = Object.freeze({
  Active: "active",
  LoggedIn: "LoggedIn",
  LoggedOut: "LoggedOut",
  Removed: "Removed",
});

/** A user of an app, as it is on this device. Several objects may stand for one user. */
class User {
  #core;
  #handle;
  #id;
  #listeners;
  #profile;

  /** Made by an `App` alone. */
  constructor(core, app, handle, id) {
    this.#core = core;
    this.#handle = handle;
    this.#id = id;
    this.#listeners = new Listeners((listener) => core.listenToUser(handle, listener));
    Object.defineProperty(this, "app", { value: app });
  }

  /** The native handle of a user of a given core. */
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
    return this.#core.read("user", this.#handle);
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
    return this.#core.read("userState", this.#handle);
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
    const bytes = this.#core.read("customData", this.#handle);
    return bytes ? decode(bytes) : {};
  }

  get profile() {
    this.#profile ??= decode(this.#core.read("profile", this.#handle));
    return this.#profile;
  }

  get functions() {
    return makeFunctions(this);
  }

  get apiKeys() {
    return new ApiKeyAuth(this.#core, this.#handle);
  }

  /** The documentation's other name for `apiKeys`. */
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
 * Names that the language, Node.js and test tools read from any object, and whose values they call. An app's function of
 * such a name is called with `callFunction`. `realm-web` reserves the names of `Object.prototype` and "inspect", too.
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

/** Names of functions. Tools also read properties such as "$$typeof" and "@@__IMMUTABLE_ITERABLE__@@". */
const FUNCTION_NAME = /^[\p{L}\p{N}_/-]+$/u;

const isFunctionName = (name) => typeof name === "string" && !RESERVED_NAMES.has(name) && FUNCTION_NAME.test(name);

/** The app's functions as methods. As a value, this is an object without properties. */
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
