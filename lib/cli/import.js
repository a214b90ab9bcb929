"use strict";

const { EXISTING_STORE, IGNORE_INDEXES } = require("./options.js");
const { say } = require("./output.js");
const { withStore } = require("./store.js");

const summary = "import a dump of export or mongodump; never overwrites an existing document";

const positionals = [{ name: "DIR", help: "directory of the dump" }];

const options = {
  ...EXISTING_STORE,
  create: { type: "boolean", help: "create the store if it does not exist (default: an error)" },
  "ignore-indexes": IGNORE_INDEXES,
};

async function run({ values, positionals: [directory] }) {
  const work = (backend, progress) =>
    backend.import(directory, { ...progress, ignoreIndexes: values["ignore-indexes"] });
  const advice = "; --create creates it";
  const { answer, store } = await withStore(values, work, { mayCreate: values.create, writes: true, advice });
  for (const line of answer.reported) {
    say(`warning: ${line}`);
  }
  say(`imported ${answer.written} documents into ${store}; ${answer.unchanged} already existed`);
}

module.exports = { summary, positionals, options, run };
