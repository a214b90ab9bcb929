"use strict";

const { addonFile, platform } = require("./platform.js");

/** Node's code for a module that does not exist. */
const NOT_FOUND = "MODULE_NOT_FOUND";

/** Loads the addon built by `npm run prepare`. Bundlers cannot follow a `createRequire`. */
function loadFromCheckout(cause) {
  try {
    const { createRequire } = require("node:module");
    return createRequire(__filename)(`../native/${addonFile}`);
  } catch (error) {
    // A bundle of ES modules has no `__filename`.
    if (error.code !== NOT_FOUND && !(error instanceof ReferenceError)) {
      throw error;
    }
    throw new Error(
      `Userkeep's addon for ${platform} was not found. Was @userkeep/native-${platform} installed (npm leaves optional ` +
        "packages out with --omit=optional)? In a checkout, `npm run prepare` builds it",
      { cause },
    );
  }
}

/** Loads the addon from the package for this platform, or from a checkout. */
function load() {
  // Bundlers only follow a `require` of a literal, and only tolerate a missing package in a `try`.
  try {
    switch (platform) {
      case "darwin-arm64":
        return require("@userkeep/native-darwin-arm64");
      case "darwin-x64":
        return require("@userkeep/native-darwin-x64");
      case "linux-arm64-gnu":
        return require("@userkeep/native-linux-arm64-gnu");
      case "linux-arm64-musl":
        return require("@userkeep/native-linux-arm64-musl");
      case "linux-x64-gnu":
        return require("@userkeep/native-linux-x64-gnu");
      case "linux-x64-musl":
        return require("@userkeep/native-linux-x64-musl");
      case "win32-x64-msvc":
        return require("@userkeep/native-win32-x64-msvc");
    }
  } catch (error) {
    if (error.code !== NOT_FOUND) {
      throw error;
    }
    return loadFromCheckout(error);
  }
  return loadFromCheckout();
}

module.exports = load();
