"use strict";

// Helpers of the attacks on operations: a user under a rule who sends operations that cost much.

const { everything, logInNew, openApp, rulesFile, writeDefinition } = require("../helpers.js");

/** The numbers from 0 to `count` - 1. */
const range = (count) => Array.from({ length: count }, (_, n) => n);

/** Matches the documents of the user. */
const owned = { owner: "%%user.id" };

/** Opens an app with a collection in which each user has only his or her own documents, and logs a user in. */
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

/** Returns the outcome of an operation (`"ok"` or the code of its error) and its duration in milliseconds. */
async function ended(operation) {
  const begun = performance.now();
  const outcome = await operation.then(
    () => "ok",
    (error) => error.serverCode ?? error.code,
  );
  return { outcome, took: performance.now() - begun };
}

module.exports = { ended, openOwned, range };
