"use strict";

const path = require("node:path");
const { say } = require("./output.js");

const summary = "list all problems of a definition; exit status 1 if one prevents loading";

const positionals = [{ name: "DIR", help: "the definition's directory (default: ./userkeep)", isOptional: true }];

const options = { strict: { type: "boolean", help: "exit status 1 for warnings too (default: only for errors)" } };

const ALWAYS_RESETS =
  "the reset function always answers 'success', so that any client can set the password of any user: " +
  "answer 'fail' or 'pending' without a proof of the user's identity";

const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

/** Returns the problems of functions, which do not keep the definition from loading, as texts. */
function problemsOfFunctions(directory, functions, resetFunction) {
  if (functions.length === 0) {
    return [];
  }
  const { Runtime } = require("../functions/runtime.js");
  const { alwaysResets, unreachable } = require("../functions/check.js");
  const sources = functions.filter(({ source }) => typeof source === "string");
  // The check names the functions without a source already.
  const lacking = new Set(functions.filter((entry) => !sources.includes(entry)).map(({ name }) => name));
  const runtime = new Runtime({ functions, directory: path.join(directory, "functions") });
  const resets = sources.filter(({ name, source }) => name === resetFunction && alwaysResets(source));
  const found = runtime.check().filter((problem) => !lacking.has(problem.function));
  return [
    ...found.map(({ file, line, column, message }) => `${file}:${line}:${column}: ${message}`),
    ...resets.map(({ file }) => `${file}: ${ALWAYS_RESETS}`),
    ...unreachable(functions).map((name) => `functions/config.json: nothing can call the private function '${name}'`),
  ];
}

function run({ values: { strict = false }, positionals: [given = "userkeep"] }) {
  const native = require("../native.js");
  const { secretVariables } = require("../configuration.js");
  const { ANY_ORIGIN } = require("../serve.js");
  const directory = path.resolve(given);
  const { problems, allowsAnyOrigin, functions, resetFunction } = native.checkDefinition(directory, secretVariables());
  for (const text of problemsOfFunctions(directory, functions, resetFunction)) {
    problems.push({ isError: false, text });
  }
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
    say(`${given}: no problems`);
  } else {
    say(`${given}: ${count(errors, "error")}, ${count(warnings, "warning")}`);
  }
  if (errors > 0 || (strict && warnings > 0)) {
    process.exitCode = 1;
  }
}

module.exports = { summary, positionals, options, run };
