"use strict";

// Processes that are killed while they create users.

const { execFile } = require("node:child_process");
const path = require("node:path");
const { promisify } = require("node:util");
const { ROOT } = require("./helpers.js");

/** The number of kills; `node scripts/kill-sign-ups.mjs` has 200. */
const ROUNDS = 20;

test("kills during sign-ups leave no user without the function's writes, and none the other way round", async () => {
  const args = [path.join(ROOT, "scripts/kill-sign-ups.mjs"), "--rounds", String(ROUNDS)];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  expect(stdout).toMatch(new RegExp(`^${ROUNDS} passed, 0 failed$`, "m"));
}, 180_000);
