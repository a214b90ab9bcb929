"use strict";

const { AssertionError, assert } = require("./assert.js");
const { updateLogLevel } = require("./bridge.js");
const { callBack } = require("./callbacks.js");
const { NumericLogLevel } = require("./database.js");
const { setDefault } = require("./logger.js");

/**
 * The log level for each level of the SDK. The log has no entries between `debug` and `info`, none
 * more detailed than `debug`, and none that are fatal.
 */
const LEVELS = new Map([
  ["all", "debug"],
  ["trace", "debug"],
  ["debug", "debug"],
  ["detail", "info"],
  ["info", "info"],
  ["warn", "warn"],
  ["error", "error"],
  ["fatal", "off"],
  ["off", "off"],
]);

/** The category of every log entry. */
const CATEGORY = "Realm.App";

/** The categories whose level applies to it: in the SDK, a level includes subcategories. */
const EFFECTIVE_CATEGORIES = ["Realm", CATEGORY];

/** The SDK's other categories, which have no entries. */
const SILENT_CATEGORIES = [
  "Realm.Storage",
  "Realm.Storage.Transaction",
  "Realm.Storage.Query",
  "Realm.Storage.Object",
  "Realm.Storage.Notification",
  "Realm.Sync",
  "Realm.Sync.Client",
  "Realm.Sync.Client.Session",
  "Realm.Sync.Client.Changeset",
  "Realm.Sync.Client.Network",
  "Realm.Sync.Client.Reset",
  "Realm.Sync.Server",
  "Realm.SDK",
];

/** Sets the level of the default log. `level` is a name or a number of the SDK. */
function setLogLevel(level, category = "Realm") {
  const isEffective = EFFECTIVE_CATEGORIES.includes(category);
  if (!isEffective && !SILENT_CATEGORIES.includes(category)) {
    throw new AssertionError(`Unexpected log category: '${category}'`);
  }
  const name = typeof level === "number" ? NumericLogLevel[level]?.toLowerCase() : level;
  if (!LEVELS.has(name)) {
    throw new AssertionError(`Unexpected log level: ${String(level)}`);
  }
  if (isEffective) {
    setDefault({ level: LEVELS.get(name) });
    updateLogLevel();
  }
}

/**
 * Sends the default log to a callback. As in the SDK, a function with two parameters receives the
 * level and the message. Any other function receives an object of category, level and message.
 */
function setLogger(callback) {
  assert.function(callback);
  const takesLevel = callback.length === 2;
  setDefault({
    write: (level, message) =>
      takesLevel ? callBack(callback, level, message) : callBack(callback, { category: CATEGORY, level, message }),
  });
}

module.exports = { setLogLevel, setLogger };
