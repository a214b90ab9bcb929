"use strict";

const fs = require("node:fs");

/** The start of an ELF file, in which the path of its interpreter stands. */
const HEADER_SIZE = 4096;

/**
 * Returns true on a Linux whose C library is musl: the interpreter of this program is musl's. Node's own report would
 * say so too, but takes milliseconds.
 */
function isMusl() {
  if (process.platform !== "linux") {
    return false;
  }
  const header = Buffer.alloc(HEADER_SIZE);
  try {
    const program = fs.openSync(process.execPath, "r");
    try {
      fs.readSync(program, header, 0, HEADER_SIZE, 0);
    } finally {
      fs.closeSync(program);
    }
  } catch {
    // A program that may not be read, or that was replaced: most systems have glibc.
    return false;
  }
  return header.includes("/ld-musl-");
}

const suffix = { linux: isMusl() ? "-musl" : "-gnu", win32: "-msvc" }[process.platform] ?? "";

/** This machine, as the folders in `npm/` name it. */
const platform = `${process.platform}-${process.arch}${suffix}`;

/** The addon's file for this machine. */
const addonFile = `userkeep.${platform}.node`;

module.exports = { addonFile, platform };
