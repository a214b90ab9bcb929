"use strict";

const { EXISTING_STORE } = require("./options.js");
const { mistake, shown } = require("./arguments.js");
const { say } = require("./output.js");
const { checkExists, checkHasApp, chooseStore } = require("./store.js");

const summary = "rotate: create a new key to sign tokens; the old keys verify until their last token expires";

const ONE_ACTION = "the only action of 'userkeep keys' is rotate";

const positionals = [{ name: "rotate", help: "the only action", whenMissing: ONE_ACTION }];

const options = { ...EXISTING_STORE };

async function run({ values, positionals: [action] }) {
  if (action !== "rotate") {
    throw mistake({ name: "keys", positionals, options }, `${ONE_ACTION}, got ${shown(action)}`);
  }
  const { id, store } = chooseStore(values, { needsApp: true, writes: true });
  const { Backend, openNative } = require("../backend.js");
  const opened = openNative({ id, store, definition: values.definition }, "--app");
  const backend = new Backend(opened);
  try {
    checkExists(opened.store);
    await checkHasApp(opened);
    const key = await backend.rotateKeys();
    say(`new signing key of app '${id}' in ${opened.store}: ${key}`);
  } finally {
    await backend.close();
  }
}

module.exports = { summary, positionals, options, run };
