"use strict";

// The store that a command works on.

const fs = require("node:fs");
const path = require("node:path");
const { UsageError } = require("./arguments.js");
const { showProgress } = require("./progress.js");
const { definedId } = require("../backend.js");
const { closest } = require("../suggest.js");

/** The directory of the stores that no option names. */
const STORES = ".userkeep";

const EXTENSION = ".sqlite";

/** The stores in a directory, as the files' names. */
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

/** The app's id that the name of a store stands for. */
function idOf(file) {
  try {
    return decodeURIComponent(path.basename(file, EXTENSION));
  } catch {
    return path.basename(file, EXTENSION);
  }
}

/** The id of the app whose store is in the working directory: the definition's if it has one there, else that of the only store. */
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
 * Returns the store and the app's id for a command's options. Without any, they are those of the definition, or of the only store in the
 * working directory.
 *
 * @throws {UsageError} if there is none, or several
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
      throw new UsageError("--app is missing: neither the definition nor the store says the app's id");
    }
    return { store: named, id: idOf(named.slice("sqlite:".length)) };
  }
  // The app is asked for nothing, so any id will do.
  return { store: named, id: "store" };
}

/**
 * Checks that the file of a store exists and is not empty: a misspelled name must not create a store.
 *
 * @throws {UsageError} if it does not exist, or is empty
 */
function checkExists(file, advice = "") {
  if (file === "memory") {
    throw new UsageError("a store in memory is gone when its process ends; name another one with --store");
  }
  if (file.startsWith("mongodb")) {
    return;
  }
  if (fs.existsSync(file)) {
    const found = fs.statSync(file);
    if (found.isFile() && found.size === 0) {
      throw new UsageError(`the file ${file} is empty, and not a Userkeep store${advice}`);
    }
    return;
  }
  // The ending is the same, and would make all of them alike.
  const others = storesIn(path.dirname(file)).map((name) => path.basename(name, EXTENSION));
  const similar = closest(path.basename(file, EXTENSION), others);
  const suggestion = similar ? `; did you mean ${path.join(path.dirname(file), similar + EXTENSION)}?` : "";
  throw new UsageError(`there is no store at ${file}${suggestion || advice}`);
}

/** Opens the store that the options name, does a long task with it, and closes it. Resolves to the task's answer and the store. */
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
