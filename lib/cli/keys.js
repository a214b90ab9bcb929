"use strict";

const { EXISTING_STORE } = require("./options.js");
const { mistake } = require("./arguments.js");
const { say } = require("./output.js");
const { checkExists, chooseStore } = require("./store.js");

const summary = "rotate: create a new key to sign tokens; the old keys verify until their last token expires";

const ONE_ACTION = "the only action of 'userkeep keys' is rotate";

const positionals = [{ name: "rotate", help: "the only action", whenMissing: ONE_ACTION }];

const options = { ...EXISTING_STORE };

async function run({ values, positionals: [action] }) {
  if (action !== "rotate") {
    throw mistake({ name: "keys", positionals, options }, `${ONE_ACTION}, got '${action}'`);
  }
  const { id, store } = chooseStore(values, { needsApp: true });
  const { Backend, openNative } = require("../backend.js");
  const opened = openNative({ id, store, definition: values.definition }, "--app");
  const backend = new Backend(opened);
  try {
    checkExists(opened.store);
    say(`new signing key: ${await backend.rotateKeys()}`);
  } finally {
    await backend.close();
  }
}

module.exports = { summary, positionals, options, run };
