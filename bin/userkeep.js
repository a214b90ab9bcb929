#!/usr/bin/env node
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { parseArgs } = require("node:util");

const USAGE = `Usage: userkeep <command> [options]

  serve         offer an app's backend over HTTP
  keys rotate   make a new key to sign tokens with; the old ones verify until their last token has expired
    for both:
      --definition DIR     the definition's directory (else USERKEEP_DEFINITION, else ./userkeep)
      --store URI          sqlite:PATH or memory: (else USERKEEP_STORE, else a file in .userkeep)
      --app ID             the app's id, if the definition does not have it
    for serve:
      --host HOST          the address to listen on (127.0.0.1)
      --port PORT          the port to listen on (3000); 0 picks one
      --public-url URL     the URL under which clients reach the server
      --tls-cert FILE      speak TLS with this certificate and what signed it, in PEM
      --tls-key FILE       and this key of it
      --trust-proxy CIDR   believe the X-Forwarded-For of a proxy in this network; may be repeated
      --unlimited CIDR     do not limit the clients of this network together, as the application's own servers
      --max-body-size N    the largest body of a request, in bytes (18 MB)
      --client-timeout MS  how long a client may go without a sign of life (30000)
      --metrics-port PORT  answer the operator's /healthz and /metrics on a port of their own
      --metrics-host HOST  and on this address (127.0.0.1)
      --log FORMAT         text or json (text)
      --log-level LEVEL    error, warn, info or debug (info)
  init [DIR]    write a definition that runs the quickstart into DIR (./userkeep)
  check [DIR]   list every problem of the definition in DIR (./userkeep); exit status 1 if there is any
`;

const text = { type: "string" };
const list = { type: "string", multiple: true };
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
  "metrics-port": text,
  "metrics-host": text,
  log: text,
  "log-level": text,
};

/** The options that are numbers in JavaScript. */
const NUMBERS = ["port", "max-body-size", "client-timeout", "metrics-port"];

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
  const camelCase = (name) => name.replace(/-(\w)/g, (_all, letter) => letter.toUpperCase());
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
  let problems;
  try {
    const opened = native.open(bridge, { appId: "check", definition: path.resolve(directory), operator: true });
    problems = opened.reported.map((problem) => `warning: ${problem}`);
    await result(native.close(bridge, opened.handle));
  } catch (error) {
    problems = error.message.split("\n").map((line, index) => (index === 0 ? line : `error: ${line.trim()}`));
  }
  for (const problem of problems) {
    process.stdout.write(`${problem}\n`);
  }
  if (problems.length > 0) {
    process.exitCode = 1;
  } else {
    process.stdout.write(`${directory}: no problems\n`);
  }
}

const COMMANDS = { serve, keys, init, check };

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
