"use strict";

const { EXISTING_STORE } = require("./options.js");
const { say } = require("./output.js");
const { withStore } = require("./store.js");

const summary = "copy the store, as it is at one moment, into a file, while it stays in use";

const positionals = [{ name: "FILE", help: "file of the copy" }];

const options = { ...EXISTING_STORE };

async function run({ values, positionals: [file] }) {
  const { store } = await withStore(values, (backend, progress) => backend.backup(file, progress));
  say(`copied ${store}`);
}

module.exports = { summary, positionals, options, run };
