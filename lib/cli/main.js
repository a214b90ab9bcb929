"use strict";

const { UsageError, helpOf, parse, shown, table, withOptionNames } = require("./arguments.js");
const { printable } = require("./output.js");
const { didYouMean } = require("../suggest.js");
const { version } = require("../../package.json");

/** The commands, in the order of the help. Each file is loaded on demand. */
const COMMANDS = [
  "init",
  "check",
  "serve",
  "functions",
  "logs",
  "keys",
  "backup",
  "export",
  "import",
  "migrate",
  "doctor",
];

/** Other names of commands, which App Services' command line has. */
const ALIASES = { function: "functions", log: "logs" };

/** The words that show the help. */
const HELP = ["help", "--help", "-h"];

const load = (name) => ({ name, ...require(`./${name}.js`) });

function help() {
  const rows = COMMANDS.map((name) => [name, load(name).summary]);
  return `Usage: userkeep <command> [options]

${table(rows)}
'userkeep <command> --help' lists the options of a command, 'userkeep --version' shows the version
`;
}

function checkCommand(name) {
  if (!COMMANDS.includes(name)) {
    throw new UsageError(`unknown command ${shown(name)}${didYouMean(name, COMMANDS)}\n\n${help().trimEnd()}`);
  }
}

async function run([given, ...args]) {
  const name = Object.hasOwn(ALIASES, given ?? "") ? ALIASES[given] : given;
  if (name === "help" && args.length > 0 && !HELP.includes(args[0])) {
    checkCommand(args[0]);
    process.stdout.write(helpOf(load(args[0])));
  } else if (name === undefined || HELP.includes(name)) {
    process.stdout.write(help());
  } else if (["version", "--version", "-v"].includes(name)) {
    process.stdout.write(`${version}\n`);
  } else {
    checkCommand(name);
    const command = load(name);
    const parsed = parse(command, args);
    if (parsed === undefined) {
      process.stdout.write(helpOf(command));
    } else {
      await command.run(parsed);
    }
  }
}

/** Ends the process without a message if its reader, such as `head`, reads no more. */
function endWithReader() {
  process.stdout.on("error", (error) => {
    if (error.code !== "EPIPE") {
      throw error;
    }
    process.exit(0);
  });
}

/** Runs the command that the arguments name. Sets the exit status to 1 if it fails. */
async function main(args) {
  endWithReader();
  try {
    await run(args);
  } catch (error) {
    const message = String(error?.message ?? error);
    // The messages of the package itself name the options as JavaScript does.
    const isOfPackage = !(error instanceof UsageError) && COMMANDS.includes(args[0]);
    const lines = (isOfPackage ? withOptionNames(message, load(args[0]).options ?? {}) : message).split("\n");
    process.stderr.write(`userkeep: ${lines.map(printable).join("\n")}\n`);
    process.exitCode = 1;
  }
}

module.exports = { main };
