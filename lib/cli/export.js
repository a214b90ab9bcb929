"use strict";

const { EXISTING_STORE } = require("./options.js");
const { say } = require("./output.js");
const { withStore } = require("./store.js");

const summary = "export the store into a directory, as mongodump does";

const positionals = [{ name: "DIR", help: "directory of the dump" }];

const options = { ...EXISTING_STORE };

async function run({ values, positionals: [directory] }) {
  const { answer, store } = await withStore(values, (backend, progress) => backend.export(directory, progress));
  say(`exported ${answer} documents from ${store}`);
}

module.exports = { summary, positionals, options, run };
