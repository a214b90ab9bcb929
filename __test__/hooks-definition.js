"use strict";

const { DATABASE, COLLECTION, Realm, writeDefinition } = require("./helpers.js");

/** A function for clients that returns the documents of `app.calls`, in the order of insertion. */
const CALLS = 'exports = () => context.services.get("mongodb-atlas").db("app").collection("calls").find().toArray();';

/** A function for clients that returns all documents of the custom data. */
const ALL_CUSTOM_DATA = `exports = () => context.services.get("mongodb-atlas").db("${DATABASE}").collection("${COLLECTION}").find().toArray();`;

/** Statements of a hook that write its argument to `app.calls`. */
const RECORD = 'await context.services.get("mongodb-atlas").db("app").collection("calls").insertOne({ event });';

/** A user creation function that inserts custom data. */
const INSERT_CUSTOM_DATA = `exports = async (user) => {
  const data = context.services.get("mongodb-atlas").db("${DATABASE}").collection("${COLLECTION}");
  await data.insertOne({ userId: user.id, role: "member", email: user.data.email });
};`;

/**
 * Writes a definition with hooks. `hooks` has the sources of the functions `authentication`,
 * `confirmation`, `reset` and `creation`; `functions` those of others, which run as the system
 * user; `files` further files.
 */
function writeHooks({ authentication, confirmation, reset, creation }, functions = {}, files = {}) {
  const sources = { calls: CALLS, allCustomData: ALL_CUSTOM_DATA, ...functions };
  const manifest = Object.keys(sources).map((name) => ({ name, run_as_system: true }));
  const hooks = { authentication, confirmation, reset, creation };
  for (const [name, source] of Object.entries(hooks).filter(([, source]) => source !== undefined)) {
    sources[name] = source;
    // Neither keeps the backend from calling the function.
    manifest.push({ name, private: true, can_evaluate: { "%%user.id": "never" } });
  }
  const provider = (type, config) => ({ [type]: { name: type, type, disabled: false, config } });
  const definition = {
    "auth/providers.json": {
      ...provider("anon-user"),
      ...(authentication && provider("custom-function", { authFunctionName: "authentication" })),
      ...provider("local-userpass", {
        autoConfirm: confirmation === undefined,
        ...(confirmation && { runConfirmationFunction: true, confirmationFunctionName: "confirmation" }),
        ...(reset && { runResetFunction: true, resetFunctionName: "reset" }),
      }),
    },
    "auth/custom_user_data.json": {
      enabled: true,
      mongo_service_name: "mongodb-atlas",
      database_name: DATABASE,
      collection_name: COLLECTION,
      user_id_field: "userId",
      ...(creation && { on_user_creation_function_name: "creation" }),
    },
    "functions/config.json": manifest,
    ...files,
  };
  for (const [name, source] of Object.entries(sources)) {
    definition[`functions/${name}.js`] = source;
  }
  return writeDefinition(definition);
}

/** Returns what the hooks of an app recorded with `RECORD`, as a new anonymous user reads it. */
async function eventsOf(app) {
  const reader = await app.logIn(Realm.Credentials.anonymous(false));
  const calls = await reader.functions.calls();
  await app.removeUser(reader);
  return calls.map(({ event }) => event);
}

/** Returns all documents of the custom data that have the id of a user. */
async function customDataOf(user) {
  const all = await user.functions.allCustomData();
  return all.filter(({ userId }) => userId === user.id);
}

module.exports = { INSERT_CUSTOM_DATA, RECORD, customDataOf, eventsOf, writeHooks };
