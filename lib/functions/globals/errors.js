"use strict";

/** The error of a call of `context`, `utils` or another global of functions. */
class FunctionError extends Error {
  constructor(message, errorCode) {
    super(message);
    this.errorCode = errorCode;
  }
}
Object.defineProperty(FunctionError.prototype, "name", { value: "FunctionError", writable: true, configurable: true });

/** Returns the error of an argument that a global does not accept. */
const invalidParameter = (message) => new FunctionError(message, "InvalidParameter");

/** Returns the error of an HTTP request without an answer. */
const httpError = (problem) => new FunctionError(`http request: ${problem}`, "HTTPError");

module.exports = { FunctionError, httpError, invalidParameter };
