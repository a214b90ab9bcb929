"use strict";

const fs = require("node:fs");

/** The size of the part of an ELF file that contains the path of its interpreter, in bytes. */
const HEADER_SIZE = 4096;

/**
 * Returns true on Linux with musl as its C library: then the program's interpreter is musl's.
 * `process.report` has the same information, but takes milliseconds.
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
    // The program cannot be read, or was replaced. Most systems have glibc.
    return false;
  }
  return header.includes("/ld-musl-");
}

const suffix = { linux: isMusl() ? "-musl" : "-gnu", win32: "-msvc" }[process.platform] ?? "";

/** The platform's name, as in the directories of `npm/`. */
const platform = `${process.platform}-${process.arch}${suffix}`;

/** The file name of the addon for this platform. */
const addonFile = `userkeep.${platform}.node`;

module.exports = { addonFile, platform };
