"use strict";

// An error that nothing handles, such as one of a `fetch` that was not awaited, must not end the
// thread, because other calls run on it.

const { native } = require("../bridge.js");
const { currentCall, trackCalls } = require("./current-call.js");
const { describe } = require("./errors.js");

function report(error) {
  const call = currentCall();
  if (call === undefined) {
    native.logOfFunction("error", `unhandled error in a thread of functions: ${describe(error)}`);
  } else {
    call.reportError(error);
  }
}

/** Reports the errors of this thread that nothing handles. Only for a thread of its own. */
function surviveErrors() {
  trackCalls();
  process.on("unhandledRejection", report);
  process.on("uncaughtException", report);
}

module.exports = { surviveErrors };
