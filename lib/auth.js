"use strict";

const { assert } = require("./assert.js");
const bson = require("./bson/index.js");

/** The e-mail/password provider: registration, confirmation, password resets. */
class EmailPasswordAuth {
  #core;

  constructor(core) {
    this.#core = core;
  }

  /** Runs an action of the provider with these fields of its details. */
  async #request(action, details, names, more) {
    assert.object(details, "details");
    const payload = {};
    for (const name of names) {
      payload[name] = assert.string(details[name], name);
    }
    await this.#core.request(action, undefined, { ...payload, ...more });
  }

  registerUser(details) {
    return this.#request("register", details, ["email", "password"]);
  }

  confirmUser(details) {
    return this.#request("confirm", details, ["token", "tokenId"]);
  }

  resendConfirmationEmail(details) {
    return this.#request("confirm/send", details, ["email"]);
  }

  retryCustomConfirmation(details) {
    return this.#request("confirm/call", details, ["email"]);
  }

  resetPassword(details) {
    return this.#request("reset", details, ["password", "token", "tokenId"]);
  }

  sendResetPasswordEmail(details) {
    return this.#request("reset/send", details, ["email"]);
  }

  callResetPasswordFunction(details, ...args) {
    return this.#request("reset/call", details, ["email", "password"], { arguments: args });
  }
}

/** The API keys of a user. */
class ApiKeyAuth {
  #core;
  #user;

  constructor(core, user) {
    this.#core = core;
    this.#user = user;
  }

  #request(action, value) {
    return this.#core.request("apiKeys", this.#user, { action, value });
  }

  /** Runs an action on one key. */
  #ofKey(action, keyId) {
    bson.BSON.ObjectId.createFromHexString(assert.string(keyId, "keyId"));
    return this.#request(action, keyId);
  }

  async create(keyName) {
    const [key] = await this.#request("create", assert.string(keyName, "keyName"));
    return key;
  }

  async fetch(keyId) {
    const [key] = await this.#ofKey("fetch", keyId);
    return key;
  }

  async fetchAll() {
    return this.#request("fetchAll");
  }

  async delete(keyId) {
    await this.#ofKey("delete", keyId);
  }

  async enable(keyId) {
    await this.#ofKey("enable", keyId);
  }

  async disable(keyId) {
    await this.#ofKey("disable", keyId);
  }
}

/** The registration of a user for push notifications. */
class PushClient {
  #core;
  #user;
  #service;

  constructor(core, user, serviceName) {
    this.#core = core;
    this.#user = user;
    this.#service = assert.string(serviceName, "serviceName");
  }

  async register(token) {
    assert.string(token, "token");
    await this.#core.request("push", this.#user, { service: this.#service, token });
  }

  async deregister() {
    await this.#core.request("push", this.#user, { service: this.#service });
  }
}

module.exports = { ApiKeyAuth, EmailPasswordAuth, PushClient };
