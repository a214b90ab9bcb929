"use strict";

/** Names the app. */
const APP = { type: "string", value: "ID", help: "the app's id (default: the definition's app_id)" };

/** Names the definition. */
const DEFINITION = {
  type: "string",
  value: "DIR",
  help: "the definition's directory (default: USERKEEP_DEFINITION, else ./userkeep)",
};

/** Names the store of a command that may make one. */
const STORE = {
  type: "string",
  value: "URI",
  help: "sqlite:PATH, memory: or mongodb://… (default: USERKEEP_STORE, else .userkeep/<app>.sqlite)",
};

/** The options of the commands that work on a store that is there. */
const EXISTING_STORE = {
  store: {
    type: "string",
    value: "URI",
    help: "sqlite:PATH or mongodb://… (default: USERKEEP_STORE, else .userkeep/<app>.sqlite)",
  },
  app: {
    type: "string",
    value: "ID",
    help: "the app's id (default: the definition's app_id, else that of the only store in .userkeep)",
  },
  definition: { ...DEFINITION, help: "the directory of the definition with the app's id (default: as for serve)" },
};

/** `--ignore-indexes` */
const IGNORE_INDEXES = {
  type: "boolean",
  help: "leave out indexes of kinds that Userkeep does not have (default: they are errors)",
};

module.exports = { APP, DEFINITION, EXISTING_STORE, IGNORE_INDEXES, STORE };
