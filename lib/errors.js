"use strict";

/** The optional fields of an error: MongoDB's code, and those of an HTTP response. */
const OPTIONAL = ["serverCode", "retryAfter", "status", "link", "errorLabels"];

/** Returns the options of an error for the failure of the network that caused it, if any. */
function causeOf(cause) {
  if (!cause) {
    return undefined;
  }
  const { message, code } = cause;
  return { cause: Object.assign(new Error(message), code && { code }) };
}

/** Converts an error of the addon to an `Error` with the SDK's `code` and the code's name. */
function toError(reported) {
  const { message, code, errorCode, cause } = reported;
  const error = Object.assign(new Error(message, causeOf(cause)), { code, errorCode });
  for (const name of OPTIONAL) {
    if (reported[name] !== undefined && reported[name] !== null) {
      error[name] = reported[name];
    }
  }
  return error;
}

module.exports = { toError };
