"use strict";

// Parses the command line by a command's table of options.

const { parseArgs } = require("node:util");
const { withoutSecrets } = require("../configuration.js");
const { didYouMean } = require("../suggest.js");

/** An error in the arguments of the command line. */
class UsageError extends Error {}

/** `--help` and `-h`, which every command has. */
const HELP = { help: { type: "boolean", short: "h", help: "show this help" } };

/** Returns the first line of a command's help. */
function usageOf({ name, positionals = [], options = {} }) {
  const places = positionals.map(({ name: place, isOptional }) => (isOptional ? `[${place}]` : place));
  const words = ["userkeep", name, ...places, ...(Object.keys(options).length > 0 ? ["[options]"] : [])];
  return `Usage: ${words.join(" ")}`;
}

/** Returns the help of a command. */
function helpOf(command) {
  const rows = [];
  for (const { name, help } of command.positionals ?? []) {
    rows.push([name, help]);
  }
  for (const [name, { value, short, help }] of Object.entries({ ...command.options, ...HELP })) {
    rows.push([`${short ? `-${short}, ` : ""}--${name}${value ? ` ${value}` : ""}`, help]);
  }
  return `${usageOf(command)}\n\n${command.summary}\n\n${table(rows)}`;
}

/** Formats rows as two aligned columns. */
function table(rows) {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}\n`).join("");
}

/** Returns an error in the arguments of a command, with its usage. */
function mistake(command, message) {
  return new UsageError(`${message}\n\n${usageOf(command)}\n'userkeep ${command.name} --help' lists the options`);
}

/** Returns an argument for a message, in quotation marks and without a password. */
const shown = (argument) => `'${withoutSecrets(argument)}'`;

/** The values that may be addresses. A connection string in another place is a mistake. */
const ADDRESSES = ["URI", "URL"];

/** Checks that a value is not empty or misplaced. `kind` is its word in the usage. */
function checkPlain(command, name, kind, value) {
  if (value === "") {
    throw mistake(command, `${name} needs a value, got ''`);
  }
  if (!ADDRESSES.includes(kind) && /^\s*mongodb(\+srv)?:/i.test(value)) {
    throw mistake(command, `${name} is not the address of a store, got ${shown(value)}`);
  }
}

/**
 * Returns the option of a command as JavaScript names it, such as `publicUrl` for `public-url`.
 */
const camelCase = (name) => name.replace(/-(\w)/g, (_all, letter) => letter.toUpperCase());

/**
 * Returns a message with the options of a command as the command line names them. The message may
 * name them as JavaScript does: as the option 'name', as Expected 'name', or as 'theName'.
 */
function withOptionNames(message, options) {
  const flags = new Map(Object.keys(options).map((name) => [camelCase(name), `--${name}`]));
  return message.replace(
    /(\b(?:the )?option |\bexpected )?(['`])(?:--)?(\w+)\2/gi,
    (all, before = "", _quote, name) => {
      const flag = flags.get(name);
      // Without these words, a name of one word may be another thing, such as an app.
      if (flag === undefined || (before === "" && !/[A-Z]/.test(name))) {
        return all;
      }
      return /^expected/i.test(before) ? `${before}${flag}` : flag;
    },
  );
}

/** Returns the value of an option, validated and converted by its entry in the table. */
function readValue(name, { number, choices }, value) {
  if (choices && !choices.includes(value)) {
    const last = choices.at(-1);
    const list = choices.length === 2 ? choices.join(" or ") : `${choices.slice(0, -1).join(", ")} or ${last}`;
    throw new UsageError(`--${name} must be ${list}, got ${shown(value)}${didYouMean(value, choices)}`);
  }
  if (!number) {
    return value;
  }
  if (!/^\d+$/.test(value)) {
    throw new UsageError(`--${name} must be a number, got ${shown(value)}`);
  }
  const [min, max] = number;
  if (Number(value) < min || Number(value) > max) {
    throw new UsageError(`--${name} must be from ${min} to ${max}, got '${value}'`);
  }
  return Number(value);
}

/**
 * Parses the arguments of a command. Returns `{ values, positionals }`, or undefined if they
 * contain `--help`.
 *
 * @throws {UsageError} if an argument is unknown, missing or invalid
 */
function parse(command, args) {
  const options = { ...command.options, ...HELP };
  const types = Object.fromEntries(
    Object.entries(options).map(([name, { type, short, multiple }]) => [
      name,
      { type, ...(short && { short }), ...(multiple && { multiple }) },
    ]),
  );
  // The strict mode has its own messages, without suggestions.
  const { tokens } = parseArgs({ args, options: types, allowPositionals: true, strict: false, tokens: true });
  if (tokens.some(({ kind, name }) => kind === "option" && name === "help")) {
    return undefined;
  }
  const values = {};
  const positionals = [];
  for (const token of tokens) {
    if (token.kind === "positional") {
      positionals.push(token.value);
    } else if (token.kind === "option") {
      readOption(command, token, values);
    }
  }
  const places = command.positionals ?? [];
  if (positionals.length > places.length) {
    throw mistake(command, `unexpected argument ${shown(positionals[places.length])}`);
  }
  positionals.forEach((value, index) => {
    const { name } = places[index];
    if (["DIR", "FILE"].includes(name)) {
      checkPlain(command, name, name, value);
    }
  });
  const missing = places[positionals.length];
  if (missing && !missing.isOptional) {
    throw mistake(command, missing.whenMissing ?? `the ${missing.help} is missing`);
  }
  return { values, positionals };
}

/** Adds the value of one option to `values`. */
function readOption(command, { name, rawName, value, inlineValue }, values) {
  const options = command.options ?? {};
  if (!Object.hasOwn(options, name)) {
    const suggestion = didYouMean(name, Object.keys({ ...options, ...HELP }), (option) => `--${option}`);
    throw mistake(command, `unknown option ${shown(rawName)}${suggestion}`);
  }
  const option = options[name];
  if (option.type === "boolean") {
    if (value !== undefined) {
      throw mistake(command, `--${name} takes no value, got ${shown(value)}`);
    }
    values[name] = true;
    return;
  }
  const isNegative = option.number !== undefined && /^-\d/.test(value ?? "");
  if (value === undefined || (!inlineValue && value.startsWith("-") && !isNegative)) {
    const isOption = value === undefined || Object.hasOwn({ ...options, ...HELP }, value.replace(/^--?|=.*$/g, ""));
    const got = isOption ? "" : `, got ${shown(value)}; a value that begins with '-' needs --${name}=VALUE`;
    throw mistake(command, `--${name} needs a value: --${name} ${option.value}${got}`);
  }
  checkPlain(command, `--${name}`, option.value, value);
  const read = readValue(name, option, value);
  values[name] = option.multiple ? [...(values[name] ?? []), read] : read;
}

module.exports = { UsageError, camelCase, helpOf, mistake, parse, shown, table, withOptionNames };
