"use strict";

/** The suites of what works the same way wherever the backend is: they run in this process, and again over HTTP. */
const EVERYWHERE = ["documented-page", "users", "custom-data", "collection", "rules", "watch", "other-methods"];

const suites = (names) => names.map((name) => `<rootDir>/__test__/${name}.test.js`);

module.exports = {
  testTimeout: 60_000,
  projects: [
    { displayName: "embedded", testEnvironment: "node", testMatch: suites(["*"]) },
    {
      displayName: "remote",
      testEnvironment: "node",
      testMatch: suites(EVERYWHERE),
      globals: { USERKEEP_TEST_MODE: "remote" },
    },
  ],
};
