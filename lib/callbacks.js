"use strict";

/**
 * Calls a function of the application's, a listener or a logger. If it throws, that is its own failure: what it was told
 * of goes on, and the error is thrown on its own.
 */
function callBack(callback, ...args) {
  try {
    callback(...args);
  } catch (error) {
    process.nextTick(() => {
      throw error;
    });
  }
}

module.exports = { callBack };
