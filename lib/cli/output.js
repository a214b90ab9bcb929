"use strict";

const { escapeControls } = require("../logger.js");

/** Prints a line. What is not ours, as the name of a collection, cannot control the terminal. */
const say = (line) => process.stdout.write(`${escapeControls(line)}\n`);

module.exports = { say };
