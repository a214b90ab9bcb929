"use strict";

// Opens, logs for and closes a native handle: the same for apps and for operators.

const { closeHandle, listenToLog, openHandle } = require("./bridge.js");
const { KNOWN_KEYS, withoutPassword } = require("./configuration.js");
const { makeLogger } = require("./logger.js");
const { didYouMean } = require("./suggest.js");

/** Reloads the definition when its files change, if the settings want that. */
function watch({ watchDefinition: isWatched, definition }, opened, log) {
  if (!isWatched) {
    return () => {};
  }
  if (definition === undefined) {
    log("warn", "watchDefinition has no effect: the built-in development definition has no files");
    return () => {};
  }
  return require("./watch-definition.js").watchDefinition(opened, log);
}

/**
 * Opens a handle for a resolved configuration.
 *
 * Returns the addon's facts as `opened`, the store's address without a password, the function that
 * logs, two that log what has no effect, and `close`, which ends the logging too.
 */
function openLogged({ native: configuration, functions, unknown }, logger) {
  const log = makeLogger(logger);
  const opened = openHandle(configuration);
  const hasFunctions = opened.functions !== undefined && opened.functions !== null;
  if (hasFunctions) {
    require("./functions/threads.js").addApp(opened.handle, functions);
  }
  const stopLogging = listenToLog(log);
  const stopWatching = watch(configuration, opened, log);
  const close = async () => {
    stopWatching();
    try {
      // Calls of other apps on these threads may end first.
      await closeHandle(opened);
      if (hasFunctions) {
        await require("./functions/threads.js").removeApp(opened.handle);
      }
    } finally {
      stopLogging();
    }
  };
  /** Logs the unknown options. */
  const reportOptions = () => {
    for (const key of unknown) {
      log("warn", `unknown option '${key}' has no effect${didYouMean(key, KNOWN_KEYS)}`);
    }
  };
  /** Logs the problems of the definition that do not keep it from loading. */
  const reportDefinition = () => {
    for (const problem of opened.reported) {
      log("warn", problem);
    }
  };
  const store = withoutPassword(configuration.store || "memory");
  return { opened, store, log, reportOptions, reportDefinition, close };
}

module.exports = { openLogged };
