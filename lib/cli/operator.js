"use strict";

const { checkExists, checkHasApp, chooseStore } = require("./store.js");

/**
 * Opens the existing store of a command's options for the operator of its app. Returns a
 * `Backend`, which the caller closes.
 */
async function openOperator(values, options = {}) {
  const { id, store } = chooseStore(values, { needsApp: true });
  const { Backend, openNative } = require("../backend.js");
  const opened = openNative({ id, store, definition: values.definition, ...options }, "--app");
  const backend = new Backend(opened);
  try {
    checkExists(opened.store);
    await checkHasApp(opened);
  } catch (error) {
    await backend.close();
    throw error;
  }
  return backend;
}

module.exports = { openOperator };
