"use strict";

const { maskComments } = require("./mask-comments.js");

const REQUIRE = /(?<![\w$.])require\s*\(\s*(["'`])([^"'`$\n]+)\1\s*\)/g;
const EXECUTE = /\bfunctions\s*\??\.\s*execute\s*\(\s*(["'`])([^"'`$\n]+)\1/g;

/** `execute` taken from `context.functions`, and its calls. */
const TAKES_EXECUTE = /\{[^{}]*\bexecute\b[^{}]*\}\s*=\s*context\s*\.\s*functions\b/;
const EXECUTE_ALONE = /(?<![\w$.])execute\s*\(\s*(["'`])([^"'`$\n]+)\1/g;

/** Returns the line and the column of an offset in a text, both from 1. */
function placeOf(text, offset) {
  const before = text.slice(0, offset).split("\n");
  return { line: before.length, column: before.at(-1).length + 1 };
}

function missingModule(name, script, modules) {
  try {
    modules.find(name, script.name);
    return undefined;
  } catch (error) {
    return error.message;
  }
}

/** Returns the modules and functions that a source names and that do not exist. */
function referenceProblems(script, names, modules) {
  const { name, file, source } = script.definition;
  const text = maskComments(source);
  const problems = [];
  const add = (offset, message) => problems.push({ function: name, file, ...placeOf(source, offset), message });
  for (const match of text.matchAll(REQUIRE)) {
    const message = missingModule(match[2], script, modules);
    if (message !== undefined) {
      add(match.index, message);
    }
  }
  const executed = [...text.matchAll(EXECUTE), ...(TAKES_EXECUTE.test(text) ? text.matchAll(EXECUTE_ALONE) : [])];
  for (const match of executed) {
    if (!names.has(match[2])) {
      add(match.index, `function not found: '${match[2]}'`);
    }
  }
  return problems;
}

function problemsOf(script, names, modules) {
  const { name, file, source } = script.definition;
  if (source === undefined) {
    return [{ function: name, file, line: 1, column: 1, message: `function '${name}' has no source` }];
  }
  const error = script.syntaxError();
  return error === undefined ? referenceProblems(script, names, modules) : [{ function: name, file, ...error }];
}

/** A call of `execute` whose first argument is not a literal, so that it can call any function. */
const EXECUTES_ANY = /\bexecute\s*(?:\?\.)?\s*\(\s*(?:[^\s"'`]|(["'`])[^"'`\n]*(?:\$\{|\1\s*\+))/;

/**
 * Returns the names of the functions that nothing can call. `isUsed` of a function is true if
 * users or other parts of the definition can call it. Any other source that contains the name of a
 * function as a string can execute it.
 */
function unreachable(functions) {
  const texts = functions.map(({ source = "" }) => maskComments(source));
  if (texts.some((text) => EXECUTES_ANY.test(text))) {
    return [];
  }
  const isNamed = (name, own) =>
    texts.some((text, index) => index !== own && ['"', "'", "`"].some((mark) => text.includes(mark + name + mark)));
  return functions.filter(({ name, isUsed }, index) => !(isUsed || isNamed(name, index))).map(({ name }) => name);
}

/** The other answers of a reset function, and the ways to fail. */
const MAY_REFUSE = /(["'`])(?:fail|pending)\1|\bthrow\b|\breject\b/;

/**
 * Returns true if the source of a reset function contains the answer `success`, and nothing by
 * which it could refuse to reset a password.
 */
function alwaysResets(source) {
  const text = maskComments(source);
  return /(["'`])success\1/.test(text) && !MAY_REFUSE.test(text);
}

/** Checks sources without running them. */
function checkFunctions(scripts, modules) {
  const names = new Set(scripts.map(({ name }) => name));
  return scripts.flatMap((script) => problemsOf(script, names, modules));
}

module.exports = { alwaysResets, checkFunctions, unreachable };
