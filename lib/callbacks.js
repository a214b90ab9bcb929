"use strict";

/**
 * Calls a listener or a logger of the application. An error that it throws does not affect the
 * operation: it becomes an uncaught exception.
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
