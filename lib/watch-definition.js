"use strict";

// Reloads the definition of an open app when its files change, for development.

const { administer } = require("./bridge.js");
const { FunctionScript } = require("./functions/scripts.js");

/** The interval between two looks at the files, in milliseconds. A change takes two of them. */
const INTERVAL = 150;

const NOT_RELOADED = "the definition was not reloaded, and the one before stays in force";

/** Throws the syntax errors of all sources, which the addon cannot find. */
function checkSources(functions) {
  const problems = functions.flatMap((definition) => {
    const error = new FunctionScript(definition).syntaxError();
    return error === undefined ? [] : [`${definition.file}:${error.line}:${error.column}: ${error.message}`];
  });
  if (problems.length > 0) {
    throw new Error(problems.join("\n"));
  }
}

async function reloadIfChanged(opened, log) {
  const changed = await administer(opened, "changedDefinition");
  if (changed === undefined) {
    return;
  }
  checkSources(changed.functions);
  const { reported, notes } = await administer(opened, "applyDefinition");
  for (const problem of [...reported, ...notes]) {
    log("warn", problem);
  }
  log("info", "the definition was reloaded");
}

/**
 * Looks at the files of the definition until the returned function is called. A definition that
 * does not load leaves the one before in force.
 */
function watchDefinition(opened, log) {
  let isBusy = false;
  let isStopped = false;
  const look = async () => {
    if (isBusy || isStopped) {
      return;
    }
    isBusy = true;
    try {
      await reloadIfChanged(opened, log);
    } catch (error) {
      if (!isStopped) {
        const lines = `${NOT_RELOADED}: ${error.message}`.split("\n");
        for (const line of lines) {
          log("error", line);
        }
      }
    } finally {
      isBusy = false;
    }
  };
  const timer = setInterval(look, INTERVAL).unref();
  return () => {
    isStopped = true;
    clearInterval(timer);
  };
}

module.exports = { watchDefinition };
