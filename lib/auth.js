"use strict";

const { assert } = require("./assert.js");
const bson = require("./bson/index.js");

/** The e-mail/password provider: registering, confirming, resetting. */
class EmailPasswordAuth {
  #core;

  constructor(core) {
    this.#core = core;
  }

  async #request(operation, details, ...names) {
    assert.object(details, "details");
    const parameters = {};
    for (const name of names) {
      parameters[name] = assert.string(details[name], name);
    }
    await this.#core.request(operation, undefined, parameters);
  }

  registerUser(details) {
    return this.#request("registerUser", details, "email", "password");
  }

  confirmUser(details) {
    return this.#request("confirmUser", details, "token", "tokenId");
  }

  resendConfirmationEmail(details) {
    return this.#request("resendConfirmationEmail", details, "email");
  }

  retryCustomConfirmation(details) {
    return this.#request("retryCustomConfirmation", details, "email");
  }

  resetPassword(details) {
    return this.#request("resetPassword", details, "password", "token", "tokenId");
  }

  sendResetPasswordEmail(details) {
    return this.#request("sendResetPasswordEmail", details, "email");
  }

  callResetPasswordFunction(details, ..._args) {
    return this.#request("callResetPasswordFunction", details, "email", "password");
  }
}

/** A user's API keys. */
class ApiKeyAuth {
  #core;
  #user;

  constructor(core, user) {
    this.#core = core;
    this.#user = user;
  }

  #request() {
    return this.#core.request("apiKeys", this.#user);
  }

  async create(keyName) {
    assert.string(keyName, "keyName");
    return this.#request();
  }

  async fetch(keyId) {
    bson.BSON.ObjectId.createFromHexString(assert.string(keyId, "keyId"));
    return this.#request();
  }

  async fetchAll() {
    return this.#request();
  }

  async delete(keyId) {
    return this.fetch(keyId);
  }

  async enable(keyId) {
    return this.fetch(keyId);
  }

  async disable(keyId) {
    return this.fetch(keyId);
  }
}

/** A user's registration for push notifications. */
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
    await this.#core.request("push", this.#user, { service: this.#service });
  }

  async deregister() {
    await this.#core.request("push", this.#user, { service: this.#service });
  }
}

module.exports = { ApiKeyAuth, EmailPasswordAuth, PushClient };
