"use strict";

/** The optional fields of an error: MongoDB's code, and those of an HTTP response. */
const OPTIONAL = ["serverCode", "retryAfter", "status", "link"];

/** Converts an error of the addon to an `Error` with the SDK's `code` and the code's name. */
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
