"use strict";

/** Whether this is a Linux whose C library is musl. */
function isMusl() {
  return process.platform === "linux" && !process.report.getReport().header.glibcVersionRuntime;
}

const suffix = { linux: isMusl() ? "-musl" : "-gnu", win32: "-msvc" }[process.platform] ?? "";

/** This machine, as the folders in `npm/` name it. */
const platform = `${process.platform}-${process.arch}${suffix}`;

/** The addon's file for this machine. */
const addonFile = `userkeep.${platform}.node`;

module.exports = { addonFile, platform };
