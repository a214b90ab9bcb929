"use strict";

const { escapeControls } = require("../logger.js");

/** Prints a line. Escapes control characters, for example in the name of a collection. */
const say = (line) => process.stdout.write(`${escapeControls(line)}\n`);

module.exports = { say };
