"use strict";

const { openOperator } = require("./operator.js");
const { EXISTING_STORE } = require("./options.js");
const { say } = require("./output.js");
const { UsageError, shown } = require("./arguments.js");

const summary = "show the log: calls of functions, log-ins and failed requests";

const positionals = [
  {
    name: "REQUEST",
    help: "a request id or the link of an error, to show its entries (default: all)",
    isOptional: true,
  },
];

const options = {
  ...EXISTING_STORE,
  type: {
    type: "string",
    value: "TYPE",
    multiple: true,
    help: "auth, function, service, trigger, or a type such as API_KEY; may be repeated (default: all)",
  },
  errors: { type: "boolean", help: "show only failures (default: show all)" },
  user: { type: "string", value: "ID", help: "show only entries of this user (default: all users)" },
  start: { type: "string", value: "TIME", help: "show only requests after this time, in ISO 8601 (default: all)" },
  end: { type: "string", value: "TIME", help: "show only requests up to this time, in ISO 8601 (default: all)" },
  limit: {
    type: "string",
    value: "N",
    short: "l",
    number: [1, 10_000],
    help: "show up to this number of entries, the newest (default: 100)",
  },
  tail: { type: "boolean", help: "show new entries until interrupted (default: show the stored ones)" },
  format: {
    type: "string",
    value: "FORMAT",
    short: "f",
    choices: ["text", "json"],
    help: "text, or json with one entry per line (default: text)",
  },
};

/** The words for types. */
const NAMES = {
  AUTH: "Authentication",
  API_KEY: "API Key",
  FUNCTION: "Function",
  SERVICE_FUNCTION: "Service",
  SERVICE_STREAM_FUNCTION: "Stream",
  PUSH: "Push",
  API: "Request",
};

/** Returns what an entry is about. */
function subjectOf({ type, name, service, event, provider, hook, method, path }) {
  const parts = [event, service, name ?? (path && `${method} ${path}`)].filter((part) => part !== undefined);
  const details = [provider, hook].filter((detail) => detail !== undefined);
  const shownDetails = details.length > 0 ? ` (${details.join(", ")})` : "";
  const what = `${parts.join(".")}${shownDetails}`;
  return what === "" ? (NAMES[type] ?? type) : `${NAMES[type] ?? type} -> ${what}`;
}

/** Formats an entry as text: a line, and an indented line for each line of the console. */
function toLines(entry) {
  const { started, durationMS, user, requestId, error, errorCode, stack, messages = [], droppedMessages } = entry;
  const result = error === undefined ? "OK" : `${errorCode}: ${error}`;
  const who = user === undefined ? "" : ` user=${user}`;
  const first = `${started.toISOString()} [${durationMS} ms] ${subjectOf(entry)}: ${result} request=${requestId}${who}`;
  const lines = messages.map(({ level, text }) => (level === "info" ? text : `${level}: ${text}`));
  const dropped = droppedMessages === undefined ? [] : [`(${droppedMessages} earlier lines were dropped)`];
  const frames = (stack ?? "")
    .split("\n")
    .slice(1)
    .map((frame) => frame.trim());
  return [first, ...[...dropped, ...lines, ...frames.filter(Boolean)].map((line) => `  ${line}`)];
}

function print(entry, format) {
  if (format === "json") {
    const { EJSON } = require("bson");
    // Within JSON, the escapes of control characters are those of its strings.
    say(EJSON.stringify(entry, { relaxed: true }));
  } else {
    toLines(entry).forEach(say);
  }
}

/** Returns a time of the command line. */
function time(name, value) {
  if (value === undefined) {
    return undefined;
  }
  const date = new Date(value);
  if (Number.isNaN(date.getTime())) {
    throw new UsageError(`--${name} must be a time such as 2024-05-31T12:00:00Z, got ${shown(value)}`);
  }
  return date;
}

async function run({ values, positionals: [given] }) {
  const { type, errors, user, start, end, limit, tail, format, ...store } = values;
  // App Services' command line has the action 'list' here.
  const request = given === "list" ? undefined : given;
  const query = { type, errors, user, from: time("start", start), to: time("end", end), request };
  const backend = await openOperator(store);
  try {
    if (!tail) {
      for (const entry of (await backend.admin.logs({ ...query, limit })).reverse()) {
        print(entry, format);
      }
      return;
    }
    for (const signal of ["SIGINT", "SIGTERM"]) {
      process.once(signal, () => process.exit(0));
    }
    for await (const entry of backend.admin.followLogs(query)) {
      print(entry, format);
    }
  } finally {
    await backend.close();
  }
}

module.exports = { summary, positionals, options, run };
