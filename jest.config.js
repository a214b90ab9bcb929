"use strict";

/** The suites that do not depend on the backend. They run in process, over HTTP and on MongoDB. */
const EVERYWHERE = [
  "documented-page",
  "users",
  "custom-data",
  "collection",
  "rules",
  "watch",
  "other-methods",
  "functions",
  "functions-realistic-app",
  "hooks",
  "logs",
];

/** The in-process suites that run on MongoDB too: all except those about files. */
const ON_MONGODB = [
  "abuse",
  "app",
  "browser",
  "bson",
  "indexes",
  "mongodb",
  "operation",
  "process",
  "realm-web",
  "reload",
  "remote",
  "serve",
  "serve-watch",
];

/** The attacks that do not depend on the backend. */
const ATTACKS_EVERYWHERE = ["functions-proxy", "hooks", "operations", "rules-booleans", "values"];

/**
 * The attacks on values and over HTTP that depend on the store. For `crowd`, the tests on MongoDB
 * are in crates/backend/tests/shares.rs.
 */
const ATTACKS_ON_STORES = ["decoding", "duplicates", "http"];

/** The attacks that do not involve a MongoDB server. */
const ATTACKS_WITHOUT_MONGODB = ["encoder", "linear"];

const suites = (names) => names.map((name) => `<rootDir>/__test__/${name}.test.js`);
const attacks = (names) => names.map((name) => `attacks/${name}`);

module.exports = {
  testTimeout: 60_000,
  projects: [
    {
      displayName: "embedded",
      testEnvironment: "node",
      testMatch: suites(["*", "attacks/*"]),
      testPathIgnorePatterns: ["/mongodb.test.js$"],
    },
    {
      displayName: "remote",
      testEnvironment: "node",
      testMatch: suites([...EVERYWHERE, ...attacks([...ATTACKS_EVERYWHERE, ...ATTACKS_WITHOUT_MONGODB])]),
      globals: { USERKEEP_TEST_MODE: "remote" },
    },
    {
      displayName: "mongodb",
      testEnvironment: "<rootDir>/__test__/mongodb-environment.js",
      testMatch: suites([...EVERYWHERE, ...ON_MONGODB, ...attacks([...ATTACKS_EVERYWHERE, ...ATTACKS_ON_STORES])]),
      globals: { USERKEEP_TEST_MODE: "mongodb" },
    },
  ],
};
