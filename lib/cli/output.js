"use strict";

const { withoutPasswords } = require("../configuration.js");
const { escapeControls } = require("../logger.js");

/**
 * Returns a line to print. Escapes control characters, for example in the name of a collection.
 */
const printable = (line) => escapeControls(withoutPasswords(line));

/** Prints a line. */
const say = (line) => process.stdout.write(`${printable(line)}\n`);

module.exports = { printable, say };
