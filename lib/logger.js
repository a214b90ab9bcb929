"use strict";

const { assert, TypeAssertionError } = require("./assert.js");

/** The log levels, the least detailed first. */
const LEVELS = ["off", "error", "warn", "info", "debug"];

/**
 * Characters that control a terminal, end a line or change its order: C0, DEL, C1, Unicode line
 * ends, and bidirectional embeddings, overrides and isolates.
 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: the expression finds them
const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g;

const ESCAPES = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** Escapes the control characters of a text as in JSON. */
function escapeControls(text) {
  return text.replace(
    CONTROLS,
    (character) => ESCAPES[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** Formats the value of a field for a line of text. */
function field(value) {
  if (typeof value !== "string") {
    return typeof value === "object" && value !== null ? JSON.stringify(value) : value;
  }
  return /[\s"=]/.test(value) ? JSON.stringify(value) : value;
}

/** Formats a log entry as one line of text. */
function toText({ message, ...fields }) {
  return escapeControls(
    [message, ...Object.entries(fields).map(([name, value]) => `${name}=${field(value)}`)].join(" "),
  );
}

/** Creates a logger that writes to standard error, as text or JSON, up to a level. */
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

/** The writer and the level of the default log, for apps without a `logger`. */
const defaults = { write: toStandardError(), level: "info" };

/** Changes the level or the writer of the default log. */
function setDefault({ level = defaults.level, write = defaults.write }) {
  Object.assign(defaults, { level, write });
}

/** Sends the default log to standard error again. */
function resetDefaultWriter() {
  setDefault({ write: toStandardError() });
}

/** Converts a message or an object with `message` to a log entry. */
const toRecord = (what) => (typeof what === "string" ? { message: what } : what);

const isWanted = (lineLevel, level) => LEVELS.indexOf(lineLevel) <= LEVELS.indexOf(level);

/** The default log. All apps share it, so that an entry of the addon is written once. */
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
 * Creates the logger of an app: a function of the level and the entry, which is a message or an
 * object with `message` and further fields. Its `level` is the most detailed one that it accepts.
 *
 * `logger` is undefined for the default log, a function of level, text and entry, an object with
 * the methods of `console`, or `null` for no log.
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
  // A logger without one of these levels receives all entries and can filter them itself.
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
