#!/usr/bin/env node
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { parseArgs } = require("node:util");

const USAGE = `Usage: userkeep <command> [options]

  serve         offer an app's backend over HTTP
  keys rotate   make a new key to sign tokens with; the old ones verify until their last token has expired
    for both:
      --definition DIR         the definition's directory (else USERKEEP_DEFINITION, else ./userkeep)
      --store URI              sqlite:PATH, memory: or mongodb://… (else USERKEEP_STORE, else a file in .userkeep)
      --app ID                 the app's id, if the definition does not have it
    for serve:
      --host HOST              the address to listen on (127.0.0.1)
      --port PORT              the port to listen on (3000); 0 picks one
      --public-url URL         the URL under which clients reach the server
      --tls-cert FILE          speak TLS with this certificate and what signed it, in PEM
      --tls-key FILE           and this key of it
      --trust-proxy CIDR       believe the X-Forwarded-For of a proxy in this network; may be repeated
      --unlimited CIDR         do not limit the clients of this network together, as the application's own servers
      --max-body-size N        the largest body of a request with a valid token, in bytes (18 MB)
      --client-timeout MS      how long a client may go without a sign of life (30000)
      --max-documents N        a user's query that returns more documents fails (50000)
      --max-answer-bytes N     a user's query whose answer has more bytes of BSON fails (32 MB)
      --max-time MS            an operation of a user that takes longer fails (10000)
      --max-write-documents N  a user's write that changes more documents fails (10000)
      --token-audience         name the app in the tokens (aud), once no process of an earlier version shares the store (off)
      --metrics-port PORT      answer the operator's /healthz and /metrics on a port of their own
      --metrics-host HOST      and on this address (127.0.0.1)
      --log FORMAT             text or json (text)
      --log-level LEVEL        error, warn, info or debug (info)
  backup FILE   copy the store into FILE, as it is at one moment, while it goes on being used
  export DIR    write a dump into DIR, as mongodump does
  import DIR    read such a dump in; documents that are there already are never overwritten
  migrate       carry a store to another one, with users and sessions, documents and indexes, and compare both
      --from URI               sqlite:PATH, or mongodb://…
      --to URI                 the same
      --database NAME          of this database alone; may be repeated
  doctor        look for what is wrong with the store; exit status 1 if there is anything
    for these, but for migrate, --store and --app as above, and
      --ignore-indexes         import, migrate: leave out indexes of kinds that Userkeep does not have
      --repair                 doctor: rebuild indexes that do not agree with the documents
  init [DIR]    write a definition that runs the quickstart into DIR (./userkeep)
  check [DIR]   list every problem of the definition in DIR (./userkeep); exit status 1 if there is any
`;

const text = { type: "string" };
const list = { type: "string", multiple: true };
const flag = { type: "boolean" };
const BACKEND_OPTIONS = { definition: text, store: text, app: text };
const SERVE_OPTIONS = {
  ...BACKEND_OPTIONS,
  host: text,
  port: text,
  "public-url": text,
  "tls-cert": text,
  "tls-key": text,
  "trust-proxy": list,
  unlimited: list,
  "max-body-size": text,
  "client-timeout": text,
  "max-documents": text,
  "max-answer-bytes": text,
  "max-time": text,
  "max-write-documents": text,
  "token-audience": flag,
  "metrics-port": text,
  "metrics-host": text,
  log: text,
  "log-level": text,
};

/** The options that are numbers in JavaScript. */
const NUMBERS = [
  "port",
  "max-body-size",
  "client-timeout",
  "max-documents",
  "max-answer-bytes",
  "max-time",
  "max-write-documents",
  "metrics-port",
];

/** The options of JavaScript that the command line names without their unit. */
const NAMES_WITH_UNIT = { maxTime: "maxTimeMS" };

/** What a person did wrong; no stack is of any help. */
class UsageError extends Error {}

function parse(args, options = {}, most = 1) {
  try {
    const parsed = parseArgs({ args, options, allowPositionals: true });
    if (parsed.positionals.length > most) {
      throw new Error(`unexpected argument '${parsed.positionals[most]}'`);
    }
    return parsed;
  } catch (error) {
    throw new UsageError(`${error.message}\n\n${USAGE}`);
  }
}

/** The options of a command as those of its function in JavaScript are named. */
function toJavaScript(values) {
  const camelCase = (name) => {
    const camel = name.replace(/-(\w)/g, (_all, letter) => letter.toUpperCase());
    return NAMES_WITH_UNIT[camel] ?? camel;
  };
  const entries = Object.entries(values).map(([name, value]) => {
    if (!NUMBERS.includes(name)) {
      return [camelCase(name), value];
    }
    if (!/^\d+$/.test(value)) {
      throw new UsageError(`--${name} must be a number, got '${value}'`);
    }
    return [camelCase(name), Number(value)];
  });
  return Object.fromEntries(entries);
}

function makeLogger(format = "text", level = "info") {
  const { LEVELS, toStandardError } = require("../lib/logger.js");
  if (!["text", "json"].includes(format)) {
    throw new UsageError(`--log must be text or json, got '${format}'`);
  }
  if (!LEVELS.includes(level)) {
    throw new UsageError(`--log-level must be one of ${LEVELS.join(", ")}, got '${level}'`);
  }
  return toStandardError({ format, level });
}

async function serve(args) {
  const { log, logLevel, ...options } = toJavaScript(parse(args, SERVE_OPTIONS, 0).values);
  const logger = makeLogger(log, logLevel);
  const { serve: listen } = require("../index.js");
  const server = await listen({ ...options, logger });
  let ending = false;
  const end = async () => {
    // A second signal does not wait.
    if (ending) {
      process.exit(1);
    }
    ending = true;
    await server.close();
  };
  process.on("SIGTERM", end);
  process.on("SIGINT", end);
  process.stdout.write(`Listening at ${server.url}\n`);
}

async function keys(args) {
  const [action, ...rest] = args;
  if (action !== "rotate") {
    throw new UsageError(`userkeep keys has one action, rotate\n\n${USAGE}`);
  }
  const { app: id, ...options } = parse(rest, BACKEND_OPTIONS, 0).values;
  const { openBackend } = require("../index.js");
  const backend = await openBackend({ ...options, id });
  try {
    process.stdout.write(`The key that signs now: ${await backend.rotateKeys()}\n`);
  } finally {
    await backend.close();
  }
}

/** Opens the store that the options name, does something with it that takes long, and closes it. */
async function withStore(args, options, { needs, mustExist }, work) {
  const { values, positionals } = parse(args, { ...BACKEND_OPTIONS, ...options }, needs ? 1 : 0);
  if (needs && positionals.length === 0) {
    throw new UsageError(`the ${needs} is missing\n\n${USAGE}`);
  }
  const { openStore } = require("../lib/backend.js");
  const { backend, store } = openStore(values, { mustExist });
  const { onProgress, end } = progressBar();
  try {
    return { answer: await work(backend, positionals[0], { ...values, onProgress }), store };
  } finally {
    end();
    await backend.close();
  }
}

const BAR = 30;

/** Shows how far something is, to a person. */
function progressBar() {
  if (!process.stderr.isTTY) {
    return { end: () => {} };
  }
  const clear = "\r\x1b[K";
  const onProgress = ({ stage, done, total }) => {
    const part = total > 0 ? Math.min(done / total, 1) : 0;
    const bar = "#".repeat(Math.round(part * BAR)).padEnd(BAR, ".");
    const percent = total > 0 ? `${Math.floor(part * 100)}%`.padStart(4) : "    ";
    process.stderr.write(`${clear}[${bar}] ${percent} ${stage}`);
  };
  return { onProgress, end: () => process.stderr.write(clear) };
}

const say = (line) => process.stdout.write(`${line}\n`);

async function backup(args) {
  const work = (backend, file, options) => backend.backup(file, options);
  const { store } = await withStore(args, {}, { needs: "file of the copy", mustExist: true }, work);
  say(`copied ${store}`);
}

async function exportDump(args) {
  const work = (backend, directory, options) => backend.export(directory, options);
  const { answer, store } = await withStore(args, {}, { needs: "directory of the dump", mustExist: true }, work);
  say(`wrote ${answer} documents of ${store}`);
}

async function importDump(args) {
  const flags = { "ignore-indexes": { type: "boolean" } };
  const work = (backend, directory, options) =>
    backend.import(directory, { ...options, ignoreIndexes: options["ignore-indexes"] });
  const { answer, store } = await withStore(args, flags, { needs: "directory of the dump", mustExist: false }, work);
  for (const line of answer.reported) {
    say(`warning: ${line}`);
  }
  say(`read ${answer.written} documents into ${store}; ${answer.unchanged} were there already`);
}

async function migrate(args) {
  const flags = { from: text, to: text, database: list, "ignore-indexes": { type: "boolean" } };
  const { from, to, database, "ignore-indexes": ignoreIndexes } = parse(args, flags, 0).values;
  for (const [name, value] of Object.entries({ from, to })) {
    if (value === undefined) {
      throw new UsageError(`--${name} is missing\n\n${USAGE}`);
    }
  }
  const { openStore } = require("../lib/backend.js");
  const { backend, store } = openStore({ store: from });
  const { onProgress, end } = progressBar();
  try {
    const answer = await backend.migrate(to, { databases: database, ignoreIndexes, onProgress });
    end();
    for (const line of answer.reported) {
      say(`warning: ${line}`);
    }
    const { collections, written, unchanged } = answer;
    say(
      `carried ${written} documents of ${collections} collections over from ${store}; ${unchanged} were there already`,
    );
    say("both have the same documents, by count and hash");
  } finally {
    end();
    await backend.close();
  }
}

async function doctor(args) {
  const flags = { repair: { type: "boolean" } };
  const work = (backend, _nothing, options) => backend.check(options);
  const { answer, store } = await withStore(args, flags, { mustExist: true }, work);
  for (const { what } of answer) {
    say(what);
  }
  if (answer.length === 0) {
    say(`${store}: nothing is wrong`);
    return;
  }
  process.exitCode = 1;
  if (answer.some(({ isOfIndex }) => isOfIndex)) {
    say("`userkeep doctor --repair` makes the indexes anew");
  }
}

function init(args) {
  const [directory = "userkeep"] = parse(args).positionals;
  if (fs.existsSync(directory) && fs.readdirSync(directory).length > 0) {
    throw new UsageError(`${directory} is not empty; nothing was written`);
  }
  const native = require("../lib/native.js");
  for (const { path: name, text: contents } of native.developmentDefinition()) {
    const file = path.join(directory, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, `${JSON.stringify(JSON.parse(contents), null, 2)}\n`);
    process.stdout.write(`${file}\n`);
  }
}

async function check(args) {
  const [directory = "userkeep"] = parse(args).positionals;
  const { bridge, native, result } = require("../lib/bridge.js");
  const { ANY_ORIGIN } = require("../lib/serve.js");
  const { escapeControls } = require("../lib/logger.js");
  let problems;
  let allowsAnyOrigin = false;
  try {
    const opened = native.open(bridge, { appId: "check", definition: path.resolve(directory), operator: true });
    problems = opened.reported.map((problem) => `warning: ${problem}`);
    allowsAnyOrigin = opened.allowsAnyOrigin;
    await result(native.close(bridge, opened.handle));
  } catch (error) {
    problems = error.message.split("\n").map((line, index) => (index === 0 ? line : `error: ${line.trim()}`));
  }
  // Advice, and no problem: apps without web pages need no list.
  if (allowsAnyOrigin) {
    process.stdout.write(`warning: ${ANY_ORIGIN}\n`);
  }
  for (const problem of problems) {
    process.stdout.write(`${escapeControls(problem)}\n`);
  }
  if (problems.length > 0) {
    process.exitCode = 1;
  } else {
    process.stdout.write(`${directory}: no problems\n`);
  }
}

const COMMANDS = { serve, keys, backup, export: exportDump, import: importDump, migrate, doctor, init, check };

async function main([name, ...args]) {
  if (name === undefined || name === "help" || name === "--help") {
    process.stdout.write(USAGE);
    return;
  }
  if (!Object.hasOwn(COMMANDS, name)) {
    throw new UsageError(`there is no command '${name}'\n\n${USAGE}`);
  }
  await COMMANDS[name](args);
}

main(process.argv.slice(2)).catch((error) => {
  process.stderr.write(`userkeep: ${error instanceof UsageError ? error.message : (error.message ?? error)}\n`);
  process.exitCode = 1;
});
