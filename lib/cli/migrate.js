"use strict";

const { IGNORE_INDEXES } = require("./options.js");
const { mistake } = require("./arguments.js");
const { say } = require("./output.js");
const { withStore } = require("./store.js");

const summary = "copy a store to another one, with users, sessions and indexes, and compare both";

const options = {
  from: { type: "string", value: "URI", help: "the store to read: sqlite:PATH or mongodb://… (required)" },
  to: { type: "string", value: "URI", help: "the store to write: sqlite:PATH or mongodb://… (required)" },
  database: {
    type: "string",
    value: "NAME",
    multiple: true,
    help: "copy only this database; may be repeated (default: all)",
  },
  "ignore-indexes": IGNORE_INDEXES,
};

async function run({ values }) {
  const { from, to, database: databases, "ignore-indexes": ignoreIndexes } = values;
  for (const [name, value] of Object.entries({ from, to })) {
    if (value === undefined) {
      throw mistake({ name: "migrate", options }, `--${name} is missing`);
    }
  }
  const work = (backend, progress) => backend.migrate(to, { ...progress, databases, ignoreIndexes });
  const { answer, store } = await withStore({ store: from }, work);
  for (const line of answer.reported) {
    say(`warning: ${line}`);
  }
  const { collections, written, unchanged } = answer;
  say(`copied ${written} documents of ${collections} collections from ${store}; ${unchanged} already existed`);
  say("both stores have the same documents, by count and hash");
}

module.exports = { summary, options, run };
