"use strict";

const { formatWithOptions } = require("node:util");

/** The number of lines that are kept of a call. */
const LARGEST_NUMBER = 25;
/** The maximum size of a line in bytes. The rest of a longer line is dropped. */
const LARGEST_LINE = 512;

const FORMAT = { breakLength: Number.POSITIVE_INFINITY, compact: true, depth: 6 };

const LEVELS = { log: "info", info: "info", debug: "debug", dir: "info", trace: "debug", warn: "warn", error: "error" };

/** The number of characters of a text that are looked at: more than fit, as spaces shrink. */
const LOOKED_AT = 8 * LARGEST_LINE;

/**
 * Returns the beginning of a text in one line: as many characters as fit. The addon then removes
 * the beginning of a secret from the end of a line that is full.
 */
function shortened(whole) {
  const text = whole.slice(0, LOOKED_AT).replace(/[\r\n]+ */g, " ");
  if (text.length * 3 <= LARGEST_LINE || Buffer.byteLength(text) <= LARGEST_LINE) {
    return text;
  }
  const { read } = new TextEncoder().encodeInto(text, new Uint8Array(LARGEST_LINE));
  return text.slice(0, read);
}

/** The console lines of a call: the last 25, or the first 25 of a trigger. */
class Lines {
  messages = [];
  dropped = 0;

  constructor(keepsFirst) {
    this.keepsFirst = keepsFirst;
  }

  add(level, text) {
    if (this.messages.length === LARGEST_NUMBER) {
      this.dropped += 1;
      if (this.keepsFirst) {
        return;
      }
      this.messages.shift();
    }
    this.messages.push({ level, text: shortened(text) });
  }
}

/** Creates the global `console`. `add(level, text)` receives its lines. */
function makeConsole(add) {
  const methods = Object.entries(LEVELS).map(([name, level]) => [
    name,
    (...values) => add(level, formatWithOptions(FORMAT, ...values)),
  ]);
  return Object.fromEntries(methods);
}

module.exports = { Lines, makeConsole };
