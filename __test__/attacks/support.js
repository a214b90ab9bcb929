"use strict";

// Helpers for attacks with expensive operations by a user who is subject to rules.

const { everything, logInNew, openApp, rulesFile, writeDefinition } = require("../helpers.js");

/** Returns the numbers from 0 to `count` - 1. */
const range = (count) => Array.from({ length: count }, (_, n) => n);

/** Matches the documents of the user. */
const owned = { owner: "%%user.id" };

/**
 * Opens an app with a collection in which users can access only their own documents; logs a user
 * in.
 */
async function openOwned(options = {}) {
  const definition = writeDefinition({
    [rulesFile("db", "things")]: {
      roles: [{ name: "own", apply_when: owned, document_filters: { read: owned, write: owned }, ...everything }],
    },
  });
  const app = await openApp({ definition, ...options });
  const user = await logInNew(app);
  const collection = user.mongoClient("mongodb-atlas").db("db").collection("things");
  return { app, user, collection, definition };
}

/**
 * Returns an operation's outcome (`"ok"` or its error code) and its duration `took` in
 * milliseconds.
 */
async function ended(operation) {
  const begun = performance.now();
  const outcome = await operation.then(
    () => "ok",
    (error) => error.serverCode ?? error.code,
  );
  return { outcome, took: performance.now() - begun };
}

module.exports = { ended, openOwned, range };
