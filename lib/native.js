"use strict";

const { addonFile, platform } = require("./platform.js");

/** The addon: from this checkout, where it was built, else from the package for this machine. */
function load() {
  try {
    return require(`../native/${addonFile}`);
  } catch (error) {
    if (error.code !== "MODULE_NOT_FOUND") {
      throw error;
    }
  }
  const name = `@userkeep/native-${platform}`;
  try {
    return require(name);
  } catch (cause) {
    throw new Error(
      `Userkeep's addon for ${platform} was not found. Was ${name} installed (npm leaves optional packages out with ` +
        "--omit=optional)? In a checkout, `npm run prepare` builds it",
      { cause },
    );
  }
}

module.exports = load();
