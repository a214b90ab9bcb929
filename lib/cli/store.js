"use strict";

// Chooses, checks and opens the store of a command.

const fs = require("node:fs");
const path = require("node:path");
const { UsageError } = require("./arguments.js");
const { showProgress } = require("./progress.js");
const { definedId } = require("../backend.js");
const { closest } = require("../suggest.js");

/** The directory of the stores with default names. */
const STORES = ".userkeep";

const EXTENSION = ".sqlite";

/** Returns the file names of the stores in a directory. */
function storesIn(directory) {
  try {
    return fs
      .readdirSync(directory)
      .filter((name) => name.endsWith(EXTENSION))
      .sort();
  } catch {
    return [];
  }
}

/** Returns the app's id that the file name of a store contains. */
function idOf(file) {
  try {
    return decodeURIComponent(path.basename(file, EXTENSION));
  } catch {
    return path.basename(file, EXTENSION);
  }
}

/**
 * Returns the id of the app with a store in the working directory: that of the definition if its
 * store exists, else that of the only store.
 */
function idOfStored(defined, { mayCreate }) {
  const stores = storesIn(STORES);
  if (defined !== undefined && (mayCreate || stores.includes(`${encodeURIComponent(defined)}${EXTENSION}`))) {
    return defined;
  }
  if (stores.length === 1) {
    return idOf(stores[0]);
  }
  if (defined !== undefined) {
    return defined;
  }
  const found =
    stores.length === 0 ? `there is no store in ${STORES}` : `there are ${stores.length} stores: ${stores.join(", ")}`;
  throw new UsageError(`${found}; name one with --store sqlite:PATH or --app ID`);
}

/**
 * Returns the store and the app's id for a command's options. Without options, they are those of
 * the definition, or of the only store in the working directory.
 *
 * @throws {UsageError} if there is no store or more than one
 */
function chooseStore({ app, store, definition }, { needsApp = false, mayCreate = false } = {}) {
  const named = store ?? (process.env.USERKEEP_STORE || undefined);
  if (app === undefined && named === undefined) {
    return { store: undefined, id: idOfStored(definedId(definition), { mayCreate }) };
  }
  const id = app ?? definedId(definition);
  if (id !== undefined) {
    return { store: named, id };
  }
  if (needsApp) {
    const isUsual =
      named.startsWith("sqlite:") && path.basename(path.dirname(named.slice("sqlite:".length))) === STORES;
    if (!isUsual) {
      throw new UsageError("--app is missing: neither the definition nor the store has the app's id");
    }
    return { store: named, id: idOf(named.slice("sqlite:".length)) };
  }
  // The command does not use the app, so any id works.
  return { store: named, id: "store" };
}

/**
 * Checks that the file of a store exists, so that a misspelled name does not create a new store.
 *
 * @throws {UsageError} if it does not exist
 */
function checkExists(file, advice = "") {
  if (file === "memory") {
    throw new UsageError("a store in memory is gone when its process ends; name another one with --store");
  }
  if (file.startsWith("mongodb") || fs.existsSync(file)) {
    return;
  }
  // The common extension would make all names similar.
  const others = storesIn(path.dirname(file)).map((name) => path.basename(name, EXTENSION));
  const similar = closest(path.basename(file, EXTENSION), others);
  const suggestion = similar ? `; did you mean ${path.join(path.dirname(file), similar + EXTENSION)}?` : "";
  throw new UsageError(`there is no store at ${file}${suggestion || advice}`);
}

/**
 * Opens the store of a command's options, runs a maintenance task, and closes it. Resolves to the
 * result of the task and the store.
 */
async function withStore(values, work, { mayCreate = false, advice } = {}) {
  const { openStore } = require("../backend.js");
  const { backend, store } = openStore(chooseStore(values, { mayCreate }));
  const { onProgress, end } = showProgress();
  try {
    if (!mayCreate) {
      checkExists(store, advice);
    }
    return { answer: await work(backend, { onProgress }), store };
  } finally {
    end();
    await backend.close();
  }
}

module.exports = { checkExists, chooseStore, withStore };
