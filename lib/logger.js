"use strict";

const { assert, TypeAssertionError } = require("./assert.js");

/** The levels, the quietest first. */
const LEVELS = ["off", "error", "warn", "info", "debug"];

/** What a terminal or a reader of lines would act on: C0, DEL, C1, and the line ends of Unicode. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g;

const ESCAPES = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** Text without control characters, which stand in it as in JSON. */
function escapeControls(text) {
  return text.replace(
    CONTROLS,
    (character) => ESCAPES[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** A field as it stands in a line of text. */
function field(value) {
  if (typeof value !== "string") {
    return typeof value === "object" && value !== null ? JSON.stringify(value) : value;
  }
  return /[\s"=]/.test(value) ? JSON.stringify(value) : value;
}

/** What was logged as one line of text. */
function toText({ message, ...fields }) {
  return escapeControls(
    [message, ...Object.entries(fields).map(([name, value]) => `${name}=${field(value)}`)].join(" "),
  );
}

/** A logger that writes lines to standard error, as text or as JSON, up to a level. */
function toStandardError({ level = "info", format = "text" } = {}) {
  const write = (lineLevel, text, record) => {
    const line =
      format === "json"
        ? escapeControls(JSON.stringify({ time: new Date().toISOString(), level: lineLevel, ...record }))
        : `userkeep ${lineLevel}: ${text}`;
    process.stderr.write(`${line}\n`);
  };
  return Object.assign(write, { level });
}

/** The log of apps without a `logger` of their own: what writes it, and up to which level. */
const defaults = { write: toStandardError(), level: "info" };

/** Changes the level or the writer of the default log. */
function setDefault({ level = defaults.level, write = defaults.write }) {
  Object.assign(defaults, { level, write });
}

/** Has the default log written to standard error again. */
function resetDefaultWriter() {
  setDefault({ write: toStandardError() });
}

/** What is logged, in parts. */
const toRecord = (what) => (typeof what === "string" ? { message: what } : what);

const isWanted = (lineLevel, level) => LEVELS.indexOf(lineLevel) <= LEVELS.indexOf(level);

/** The default log, one for all apps, so that a line of the native side is written once. */
const defaultLog = Object.defineProperty(
  (lineLevel, what) => {
    if (isWanted(lineLevel, defaults.level)) {
      const record = toRecord(what);
      defaults.write(lineLevel, toText(record), record);
    }
  },
  "level",
  { get: () => defaults.level },
);

/**
 * The logger of an app: a function of level and what is to be logged, a message or an object with `message` and further
 * fields. Its `level` is the most detailed one that it takes. `logger` may be missing, for the default log; a function of
 * level, text and that object; an object with the methods of `console`; or `null` for none.
 */
function makeLogger(logger) {
  if (logger === undefined) {
    return defaultLog;
  }
  if (logger === null) {
    return Object.assign(() => {}, { level: "off" });
  }
  if (typeof logger !== "function" && typeof logger !== "object") {
    throw new TypeAssertionError("a function or an object with the methods of console", logger, "logger");
  }
  // A logger with levels of its own, or none, is told everything, and decides itself.
  const level = LEVELS.includes(logger.level) ? logger.level : "debug";
  const write = (lineLevel, text, record) => {
    if (typeof logger === "function") {
      logger(lineLevel, text, record);
    } else {
      const method = logger[lineLevel] ?? logger.log;
      assert.function(method, `logger.${lineLevel}`);
      method.call(logger, text);
    }
  };
  const log = (lineLevel, what) => {
    if (isWanted(lineLevel, level)) {
      const record = toRecord(what);
      write(lineLevel, toText(record), record);
    }
  };
  return Object.assign(log, { level });
}

module.exports = { LEVELS, escapeControls, makeLogger, resetDefaultWriter, setDefault, toStandardError };
