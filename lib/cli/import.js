"use strict";

const { EXISTING_STORE, IGNORE_INDEXES } = require("./options.js");
const { say } = require("./output.js");
const { withStore } = require("./store.js");

const summary = "read such a dump in; documents that are there already are never overwritten";

const positionals = [{ name: "DIR", help: "directory of the dump" }];

const options = {
  ...EXISTING_STORE,
  create: { type: "boolean", help: "make the store if it is not there (default: that is an error)" },
  "ignore-indexes": IGNORE_INDEXES,
};

async function run({ values, positionals: [directory] }) {
  const work = (backend, progress) =>
    backend.import(directory, { ...progress, ignoreIndexes: values["ignore-indexes"] });
  const advice = "; --create makes a new one";
  const { answer, store } = await withStore(values, work, { mayCreate: values.create, advice });
  for (const line of answer.reported) {
    say(`warning: ${line}`);
  }
  say(`read ${answer.written} documents into ${store}; ${answer.unchanged} were there already`);
}

module.exports = { summary, positionals, options, run };
