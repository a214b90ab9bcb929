"use strict";

// Text in the log that comes from clients or from a wrong configuration stays on one line, and
// contains no secrets.

const { execFile } = require("node:child_process");
const { promisify } = require("node:util");
const path = require("node:path");
const { ROOT, Realm, temporaryDirectory } = require("../helpers.js");

const run = promisify(execFile);

test("escapes control characters in text logs", async () => {
  const script = `
    const { defaultLogger } = require(${JSON.stringify(path.join(ROOT, "lib/logger.js"))});
    void defaultLogger;
    const Realm = require(${JSON.stringify(ROOT)});
    const app = new Realm.App({ id: "a\\u001b[2J\\u0085\\u009b\\u007f\\u2028\\u202a\\u202e\\u2066\\u2069b", store: "memory:" });
    app.close();`;
  const { stderr } = await run(process.execPath, ["-e", script], { cwd: temporaryDirectory() });
  expect(stderr).toMatch(/userkeep info/);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the test searches for them
  expect(stderr.replaceAll("\n", "")).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/);
  expect(stderr).toContain("\\u202e\\u2066\\u2069b");
});

test.each([
  "mongodb:/user:hunter2@host/db",
  "mongo db://user:hunter2@host/db",
  "mongodb://user:hunter2@host:port:1/db",
  "mongodb://user:hunter2@[::1/db",
  "mongodb://user:hunter2",
  "mongodb+srv://user:hunter2@a.b:27017/",
  "http://user:hunter2@host",
  "sqlite//user:hunter2@host",
])("never logs the password of a malformed address: %s", async (store) => {
  const messages = [];
  const logger = (_, message) => messages.push(JSON.stringify(message));
  try {
    const app = new Realm.App({ id: "secret", store, logger, baseFilePath: temporaryDirectory() });
    await app.logIn(Realm.Credentials.anonymous()).catch((error) => messages.push(error.message));
    await app.close();
  } catch (error) {
    messages.push(error.message, error.stack);
  }
  expect(messages.length).toBeGreaterThan(0);
  expect(messages.join("\n")).not.toContain("hunter2");
});
