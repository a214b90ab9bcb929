"use strict";

const { AssertionError, TypeAssertionError } = require("./lib/assert.js");
const { App } = require("./lib/app.js");
const { ApiKeyAuth, EmailPasswordAuth, PushClient } = require("./lib/auth.js");
const { openBackend } = require("./lib/backend.js");
const bson = require("./lib/bson/index.js");
const { MongoDBCollection } = require("./lib/collection.js");
const { MetadataMode } = require("./lib/configuration.js");
const { closeAll } = require("./lib/core.js");
const { Credentials, ProviderType } = require("./lib/credentials.js");
const database = require("./lib/database.js");
const { defineGlobal } = require("./lib/deprecated-global.js");
const { resetDefaultWriter } = require("./lib/logger.js");
const { setLogLevel, setLogger } = require("./lib/sdk-log.js");
const { serve } = require("./lib/serve.js");
const { User, UserState } = require("./lib/user.js");

const flags = { THROW_ON_GLOBAL_REALM: false, ALLOW_CLEAR_TEST_STATE: false, ALLOW_VALUES_ARRAYS: false };

/** The App Services half of the Realm SDK. There is no Realm database here to open. */
class Realm {
  static defaultPath = "default.realm";

  constructor() {
    throw database.unavailable("new Realm()");
  }

  static shutdown() {
    resetDefaultWriter();
    return closeAll();
  }

  static clearTestState() {
    if (!flags.ALLOW_CLEAR_TEST_STATE) {
      throw new Error("Set the flag 'Realm.flags.ALLOW_CLEAR_TEST_STATE = true' before calling this.");
    }
    return Realm.shutdown();
  }
}

const MongoDB = Object.freeze({ MongoDBCollection });

Object.assign(Realm, database.names, database.statics, {
  ApiKeyAuth,
  App,
  AssertionError,
  Auth: Object.freeze({ ApiKeyAuth, EmailPasswordAuth }),
  Credentials,
  EmailPasswordAuth,
  MetadataMode,
  MongoDB,
  MongoDBCollection,
  ProviderType,
  PushClient,
  Realm,
  Services: Object.freeze({ MongoDB }),
  TypeAssertionError,
  User,
  UserState,
  default: Realm,
  flags,
  openBackend,
  serve,
  setLogLevel,
  setLogger,
});

/** Defines a property whose value is made when it is first read. From then on it is one like the others. */
function defineLazily(name, make) {
  const options = { enumerable: true, configurable: true };
  const define = (value) => Object.defineProperty(Realm, name, { ...options, value, writable: true });
  Object.defineProperty(Realm, name, { ...options, get: () => define(make())[name], set: define });
}

defineLazily("BSON", () => bson.BSON);
defineLazily("Types", () => database.makeTypes(bson.BSON));
defineGlobal(Realm);

module.exports = Realm;
