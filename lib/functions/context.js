"use strict";

const { freezeClasses } = require("./frozen.js");
const { httpClient, serviceClient } = require("./services.js");

/**
 * The global `context` of one function during one invocation. Its handles have the privilege of
 * the invocation, also after the function has waited for something.
 */
class FunctionContextObject {
  #call;
  #isSystem;
  #depth;

  constructor(call, isSystem, depth) {
    this.#call = call;
    this.#isSystem = isSystem;
    this.#depth = depth;
  }

  get services() {
    return { get: (name) => serviceClient(this.#call, name, this.#isSystem) };
  }

  get functions() {
    return { execute: (name, ...args) => this.#call.execute(name, args, this.#isSystem, this.#depth) };
  }

  get values() {
    return { get: (name) => this.#call.value(name) };
  }

  get http() {
    return httpClient(this.#call);
  }

  get user() {
    return this.#call.data("user");
  }

  get request() {
    return this.#call.data("request");
  }

  get app() {
    return this.#call.data("app");
  }

  get environment() {
    return this.#call.data("environment");
  }

  get runningAsSystem() {
    return () => this.#isSystem;
  }
}

freezeClasses(FunctionContextObject);

module.exports = { FunctionContextObject };
