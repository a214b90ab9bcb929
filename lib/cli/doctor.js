"use strict";

const { EXISTING_STORE } = require("./options.js");
const { say } = require("./output.js");
const { withStore } = require("./store.js");

const summary = "check the store for damage; exit status 1 if there is a fault";

const options = {
  ...EXISTING_STORE,
  repair: { type: "boolean", help: "rebuild indexes that do not agree with the documents (default: report them)" },
};

async function run({ values: { repair, ...values } }) {
  const { answer, store } = await withStore(values, (backend, progress) => backend.check({ ...progress, repair }), {
    writes: repair,
  });
  for (const { what } of answer) {
    say(what);
  }
  if (answer.length === 0) {
    say(`${store}: nothing is wrong`);
    return;
  }
  process.exitCode = 1;
  if (answer.some(({ isOfIndex }) => isOfIndex)) {
    say("'userkeep doctor --repair' rebuilds the indexes");
  }
}

module.exports = { summary, options, run };
