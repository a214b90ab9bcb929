"use strict";

const path = require("node:path");
const { say } = require("./output.js");

const summary = "list all problems of a definition; exit status 1 if one prevents loading";

const positionals = [{ name: "DIR", help: "the definition's directory (default: ./userkeep)", isOptional: true }];

const options = { strict: { type: "boolean", help: "exit status 1 for warnings too (default: only for errors)" } };

const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

function run({ values: { strict = false }, positionals: [directory = "userkeep"] }) {
  const native = require("../native.js");
  const { ANY_ORIGIN } = require("../serve.js");
  const { problems, allowsAnyOrigin } = native.checkDefinition(path.resolve(directory));
  // This is not a problem: apps without web pages need no list.
  if (allowsAnyOrigin) {
    say(`note: ${ANY_ORIGIN}`);
  }
  for (const { isError, text } of problems) {
    say(`${isError ? "error" : "warning"}: ${text}`);
  }
  const errors = problems.filter(({ isError }) => isError).length;
  const warnings = problems.length - errors;
  if (problems.length === 0) {
    say(`${directory}: no problems`);
  } else {
    say(`${directory}: ${count(errors, "error")}, ${count(warnings, "warning")}`);
  }
  if (errors > 0 || (strict && warnings > 0)) {
    process.exitCode = 1;
  }
}

module.exports = { summary, positionals, options, run };
