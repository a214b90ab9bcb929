#!/usr/bin/env node
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { parseArgs } = require("node:util");

const USAGE = `Usage: userkeep <command> [options]

  serve   offer an app's backend over HTTP
            --definition DIR   the definition's directory (else USERKEEP_DEFINITION, else ./userkeep)
            --store URI        sqlite:PATH or memory: (else USERKEEP_STORE, else a file in .userkeep)
            --app ID           the app's id, if the definition does not have it
            --host HOST        the address to listen on (127.0.0.1)
            --port PORT        the port to listen on (3000); 0 picks one
            --public-url URL   the URL under which clients reach the server
  init [DIR]    write a definition that runs the quickstart into DIR (./userkeep)
  check [DIR]   list every problem of the definition in DIR (./userkeep); exit status 1 if there is any
`;

const text = { type: "string" };
const SERVE_OPTIONS = { definition: text, store: text, app: text, host: text, port: text, "public-url": text };

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

async function serve(args) {
  const { values } = parse(args, SERVE_OPTIONS, 0);
  const { "public-url": publicUrl, port, ...rest } = values;
  if (port !== undefined && !/^\d+$/.test(port)) {
    throw new UsageError(`--port must be a number, got '${port}'`);
  }
  const { serve: listen } = require("../index.js");
  const server = await listen({ ...rest, publicUrl, port: port === undefined ? undefined : Number(port) });
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

const COMMANDS = { serve, init, check };

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
