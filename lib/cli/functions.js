"use strict";

const path = require("node:path");
const { mistake, shown } = require("./arguments.js");
const { openOperator } = require("./operator.js");
const { EXISTING_STORE } = require("./options.js");
const { say } = require("./output.js");

const summary = "list: list the functions of the definition; run NAME: call one and show its result";

const ACTIONS = "the action of 'userkeep functions' is list or run";

const positionals = [
  { name: "ACTION", help: "list or run", whenMissing: ACTIONS },
  { name: "NAME", help: "the name of the function to run", isOptional: true },
];

const options = {
  ...EXISTING_STORE,
  definition: {
    ...EXISTING_STORE.definition,
    help: "the definition's directory (default: USERKEEP_DEFINITION, else ./userkeep)",
  },
  args: {
    type: "string",
    value: "VALUE",
    multiple: true,
    help: "run: an argument, as Extended JSON, else as a text; may be repeated (default: no arguments)",
  },
  user: { type: "string", value: "ID", help: "run: the id of the user to run as (default: the system user)" },
  name: { type: "string", value: "NAME", help: "run: the function's name (default: the second argument)" },
  format: {
    type: "string",
    value: "FORMAT",
    short: "f",
    choices: ["text", "json"],
    help: "text, or json with one object per line (default: text)",
  },
};

/** Returns an argument: Extended JSON, else the text itself. */
function readArgument(text) {
  const { EJSON } = require("bson");
  try {
    return EJSON.parse(text);
  } catch {
    return text;
  }
}

/** Lists the functions of a definition. */
function list({ definition, format }) {
  const native = require("../native.js");
  const { checkDefinition } = require("../backend.js");
  const { secretVariables } = require("../configuration.js");
  checkDefinition(definition);
  const directory = path.resolve(definition ?? (process.env.USERKEEP_DEFINITION || "userkeep"));
  const { functions } = native.checkDefinition(directory, secretVariables());
  const shownFunctions = functions.filter(({ isScript }) => !isScript);
  for (const { name, file, source, isPrivate, runAs, hasCondition } of shownFunctions) {
    const record = {
      name,
      file,
      private: isPrivate,
      runAs: runAs ?? "caller",
      hasCondition,
      hasSource: typeof source === "string",
    };
    if (format === "json") {
      process.stdout.write(`${JSON.stringify(record)}\n`);
      continue;
    }
    const facts = [
      isPrivate && "private",
      runAs && `runs as ${runAs}`,
      hasCondition && "has a condition",
      !record.hasSource && "has no source",
    ].filter(Boolean);
    say(`${name}${facts.length > 0 ? `  (${facts.join(", ")})` : ""}`);
  }
  if (shownFunctions.length === 0 && format !== "json") {
    say(`${directory}: no functions`);
  }
}

/** Calls a function, and prints its console lines and its result or error. */
async function call(name, { args = [], user, format, name: _name, ...store }) {
  const { EJSON } = require("bson");
  const backend = await openOperator(store, { logger: null });
  try {
    const { value, error, messages, droppedMessages } = await backend.admin.runFunction(name, args.map(readArgument), {
      user,
    });
    if (error !== undefined) {
      process.exitCode = 1;
    }
    if (format === "json") {
      const record = error === undefined ? { result: value, logs: messages } : { error, logs: messages };
      process.stdout.write(`${EJSON.stringify(record, { relaxed: true })}\n`);
      return;
    }
    if (droppedMessages > 0) {
      say(`(${droppedMessages} earlier lines were dropped)`);
    }
    for (const { level, text } of messages) {
      say(level === "info" ? text : `${level}: ${text}`);
    }
    if (error !== undefined) {
      say(`error: ${error.message}`);
      (error.stack ?? "").split("\n").slice(1).forEach(say);
      return;
    }
    process.stdout.write(`${value === undefined ? "undefined" : EJSON.stringify(value, { relaxed: true })}\n`);
  } finally {
    await backend.close();
  }
}

async function run({ values, positionals: [action, given] }) {
  const command = { name: "functions", positionals, options };
  if (action === "list") {
    list(values);
    return;
  }
  if (action !== "run") {
    throw mistake(command, `${ACTIONS}, got ${shown(action)}`);
  }
  const name = given ?? values.name;
  if (name === undefined) {
    throw mistake(command, "the name of the function is missing");
  }
  await call(name, values);
}

module.exports = { summary, positionals, options, run };
