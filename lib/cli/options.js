"use strict";

/** The app's id. */
const APP = { type: "string", value: "ID", help: "the app's id (default: the definition's app_id)" };

/** The directory of the definition. */
const DEFINITION = {
  type: "string",
  value: "DIR",
  help: "the definition's directory (default: USERKEEP_DEFINITION, else ./userkeep)",
};

/** The store of a command that can create one. */
const STORE = {
  type: "string",
  value: "URI",
  help: "sqlite:PATH, memory: or mongodb://… (default: USERKEEP_STORE, else .userkeep/<app>.sqlite)",
};

/** The options of the commands that need an existing store. */
const EXISTING_STORE = {
  store: {
    type: "string",
    value: "URI",
    help: "sqlite:PATH or mongodb://… (default: USERKEEP_STORE, else .userkeep/<app>.sqlite)",
  },
  app: {
    type: "string",
    value: "ID",
    help: "the app's id (default: the definition's app_id, else the only store in .userkeep)",
  },
  definition: {
    ...DEFINITION,
    help: "the definition's directory, for the app's id (default: USERKEEP_DEFINITION, else ./userkeep)",
  },
};

/** Leaves out indexes of unsupported kinds. */
const IGNORE_INDEXES = {
  type: "boolean",
  help: "leave out indexes of unsupported kinds (default: an error)",
};

module.exports = { APP, DEFINITION, EXISTING_STORE, IGNORE_INDEXES, STORE };
