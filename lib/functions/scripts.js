"use strict";

const vm = require("node:vm");
const { CallError } = require("./errors.js");

// The top level of a source is the body of a function, so that its declarations leave nothing on
// the global object. The inner function lets a source declare `context` or `require` itself, and
// `exports` is read inside it for the same reason. The source begins in a line of its own, which
// the offset takes back.
const PREFIX = "(function (exports, context, require) { return (function () {\n";
const SUFFIX = "\n; return exports; }).call(this); })";

/** Words of sources that can change built-in objects so that only the full check finds it. */
const DEFINES =
  /\bdefine[A-Z]|\bSymbol\b|Symbols\b|\beval\b|\bFunction\b|\bprototype\b|\bReflect\b|setPrototypeOf|__(?:define|proto)/;

/** Words of sources whose callbacks the runtime cannot stop at the end of the call. */
const ASYNCHRONOUS = /\b(?:WebAssembly|FinalizationRegistry|waitAsync)\b/;

/** Finds the position of a syntax error from its stack: a line, the source's line, and a caret. */
function positionOf(error, file) {
  const [first = "", , caret = ""] = String(error.stack).split("\n");
  const line = first.startsWith(`${file}:`) ? Number(first.slice(file.length + 1)) : Number.NaN;
  return { line: Number.isNaN(line) ? 1 : line, column: Math.max(caret.indexOf("^"), 0) + 1 };
}

function syntaxMessage(error) {
  const advice = /^Cannot use import statement/.test(error.message) ? ": use require() instead" : "";
  const exported = /^Unexpected token 'export'/.test(error.message) ? ": assign the function to exports instead" : "";
  return `SyntaxError: ${error.message}${advice}${exported}`;
}

/** Sources that can use the classes `MinKey` and `MaxKey` as values. */
const NAMES_KEYS = /\bM(?:in|ax)Key\b/;

/** A function's source, compiled when it is first used and then kept. */
class FunctionScript {
  #script;
  #error;

  constructor(definition) {
    this.definition = definition;
    this.name = definition.name;
    const source = definition.source ?? "";
    this.needsFullCheck = DEFINES.test(source);
    this.isAsynchronous = ASYNCHRONOUS.test(source);
    this.namesKeys = NAMES_KEYS.test(source);
  }

  /** Returns the syntax error as `{ line, column, message }`, or undefined. */
  syntaxError() {
    if (this.#script === undefined && this.#error === undefined && this.definition.source !== undefined) {
      this.#compile();
    }
    return this.#error;
  }

  /** Returns the compiled script, whose value in a context is a function that evaluates it. */
  compiled() {
    const { name, place, file, source } = this.definition;
    // Clients do not learn where the definition is.
    const shown = place ?? file;
    if (source === undefined) {
      throw new CallError(`function '${name}' has no source: ${shown ?? "its file"} is missing`, "FunctionInvalid");
    }
    const error = this.syntaxError();
    if (error !== undefined) {
      const at = `${shown}:${error.line}:${error.column}`;
      throw new CallError(`${error.message} in function '${name}' (${at})`, "FunctionSyntaxError");
    }
    return this.#script;
  }

  #compile() {
    const { source, file } = this.definition;
    try {
      // The bare source first: its errors have the right positions, and it cannot end the wrapper.
      new vm.Script(source, { filename: file });
      this.#script = new vm.Script(PREFIX + source + SUFFIX, { filename: file, lineOffset: -1 });
    } catch (error) {
      this.#error = { ...positionOf(error, file), message: syntaxMessage(error) };
    }
  }
}

module.exports = { FunctionScript };
