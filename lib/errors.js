"use strict";

/** What an error has only where it is known: MongoDB's code, and what came with an answer over HTTP. */
const OPTIONAL = ["serverCode", "retryAfter", "status", "link"];

/** The `Error` for what the native side reports: `code` as the SDK had it, and beside it the code's name. */
function toError(reported) {
  const { message, code, errorCode } = reported;
  const error = Object.assign(new Error(message), { code, errorCode });
  for (const name of OPTIONAL) {
    if (reported[name] !== undefined && reported[name] !== null) {
      error[name] = reported[name];
    }
  }
  return error;
}

module.exports = { toError };
