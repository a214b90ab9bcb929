"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { UsageError } = require("./arguments.js");
const { say } = require("./output.js");
const { kindOf } = require("../backend.js");

const summary = "write the definition of the quickstart";

const positionals = [{ name: "DIR", help: "the directory to write into (default: ./userkeep)", isOptional: true }];

const options = { app: { type: "string", value: "ID", help: "the app's id (default: my-app)" } };

function run({ values: { app = "my-app" }, positionals: [directory = "userkeep"] }) {
  const kind = kindOf(directory);
  if (kind === "other") {
    throw new UsageError(`${directory} is not a directory; nothing was written`);
  }
  if (kind === "directory" && fs.readdirSync(directory).length > 0) {
    throw new UsageError(`${directory} is not empty; nothing was written`);
  }
  const native = require("../native.js");
  for (const { path: name, text } of native.developmentDefinition()) {
    const file = path.join(directory, name);
    const contents = JSON.parse(text);
    const whole = name === "root_config.json" ? { app_id: app, ...contents, name: app } : contents;
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, `${JSON.stringify(whole, null, 2)}\n`);
    say(file);
  }
}

module.exports = { summary, positionals, options, run };
