"use strict";

/** The `Error` for what the native side reports: `code` as the SDK had it, and beside it the code's name. */
function toError({ message, code, errorCode, serverCode }) {
  const error = Object.assign(new Error(message), { code, errorCode });
  if (serverCode !== undefined && serverCode !== null) {
    error.serverCode = serverCode;
  }
  return error;
}

module.exports = { toError };
