"use strict";

const { AssertionError, TypeAssertionError } = require("./lib/assert.js");
const { App } = require("./lib/app.js");
const { ApiKeyAuth, EmailPasswordAuth, PushClient } = require("./lib/auth.js");
const { openBackend } = require("./lib/backend.js");
const bson = require("./lib/bson.js");
const { MongoDBCollection } = require("./lib/collection.js");
const { MetadataMode } = require("./lib/configuration.js");
const { closeAll } = require("./lib/core.js");
const { Credentials, ProviderType } = require("./lib/credentials.js");
const { serve } = require("./lib/serve.js");
const { User, UserState } = require("./lib/user.js");

/** The App Services half of the Realm SDK. There is no Realm database here to open. */
class Realm {
  constructor() {
    throw new Error("Userkeep has users, sessions and custom data, and no Realm database to open");
  }

  static shutdown() {
    return closeAll();
  }

  static clearTestState() {
    if (!Realm.flags.ALLOW_CLEAR_TEST_STATE) {
      throw new Error("Set the flag 'Realm.flags.ALLOW_CLEAR_TEST_STATE = true' before calling this.");
    }
    return closeAll();
  }
}

const MongoDB = Object.freeze({ MongoDBCollection });

Object.assign(Realm, {
  App,
  AssertionError,
  Auth: Object.freeze({ ApiKeyAuth, EmailPasswordAuth }),
  Credentials,
  MetadataMode,
  MongoDB,
  ProviderType,
  PushClient,
  Services: Object.freeze({ MongoDB }),
  TypeAssertionError,
  User,
  UserState,
  flags: { THROW_ON_GLOBAL_REALM: false, ALLOW_CLEAR_TEST_STATE: false },
  openBackend,
  serve,
});

/** Defines a property whose value is made when it is first read. From then on it is one like the others. */
function defineLazily(name, make) {
  const options = { enumerable: true, configurable: true };
  const define = (value) => Object.defineProperty(Realm, name, { ...options, value, writable: true });
  Object.defineProperty(Realm, name, { ...options, get: () => define(make())[name], set: define });
}

defineLazily("BSON", () => bson.BSON);

module.exports = Realm;
