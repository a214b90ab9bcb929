"use strict";

// Chooses, checks and opens the store of a command.

const fs = require("node:fs");
const path = require("node:path");
const { UsageError } = require("./arguments.js");
const { showProgress } = require("./progress.js");
const { checkDefinition, definedId } = require("../backend.js");
const { closest, didYouMean } = require("../suggest.js");

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
 * store exists, else that of the only store. A command that writes takes no store of another app
 * than the definition's.
 */
function idOfStored(defined, { mayCreate, writes }) {
  const stores = storesIn(STORES);
  if (defined !== undefined && (mayCreate || stores.includes(`${encodeURIComponent(defined)}${EXTENSION}`))) {
    return defined;
  }
  if (stores.length === 1 && defined !== undefined && writes) {
    const only = path.join(STORES, stores[0]);
    throw new UsageError(
      `the definition belongs to the app '${defined}', and the only store is ${only}; name a store with --store sqlite:PATH or --app ID`,
    );
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
function chooseStore({ app, store, definition }, { needsApp = false, mayCreate = false, writes = false } = {}) {
  if (definition !== undefined) {
    checkDefinition(definition);
  }
  const named = store ?? (process.env.USERKEEP_STORE || undefined);
  if (app === undefined && named === undefined) {
    return { store: undefined, id: idOfStored(definedId(definition), { mayCreate, writes }) };
  }
  // A command that does not need the app does not read the definition.
  const id = app ?? (needsApp ? definedId(definition) : undefined);
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

/** Checks that a store is not in memory, where a command would lose its work. */
function checkNotInMemory(store) {
  if (store === "memory") {
    throw new UsageError("a store in memory is gone when its process ends; name another one with --store");
  }
}

/** The maximum number of apps in a message. */
const MOST_LISTED = 10;

/**
 * Checks that the store of an opened backend has keys of its app, so that a misspelled id does not
 * create a new app.
 *
 * @throws {UsageError} if the store does not have the app
 */
async function checkHasApp({ id, store, native }) {
  const { administer } = require("../bridge.js");
  const { isStored, others } = await administer(native, "storedApps");
  if (isStored) {
    return;
  }
  const listed = others.slice(0, MOST_LISTED).map((other) => `'${other}'`);
  const more = others.length > listed.length ? ` and ${others.length - listed.length} more` : "";
  const found = others.length === 0 ? "it has no app" : `it has ${listed.join(", ")}${more}`;
  throw new UsageError(`there is no app '${id}' in ${store}: ${found}${didYouMean(id, others)}`);
}

/**
 * Checks that the file of a store exists and is not empty: a misspelled name must not create a
 * store.
 *
 * @throws {UsageError} if it does not exist, or is empty
 */
function checkExists(file, advice = "") {
  checkNotInMemory(file);
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
async function withStore(values, work, { mayCreate = false, writes = false, advice } = {}) {
  const { openStore } = require("../backend.js");
  const { backend, store } = openStore(chooseStore(values, { mayCreate, writes }));
  const { onProgress, end } = showProgress();
  try {
    checkNotInMemory(store);
    if (!mayCreate) {
      checkExists(store, advice);
    }
    return { answer: await work(backend, { onProgress }), store };
  } finally {
    end();
    await backend.close();
  }
}

module.exports = { checkExists, checkHasApp, chooseStore, withStore };
