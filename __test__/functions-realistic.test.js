"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { createRuntime } = require("./functions/run.js");
const { CASES, ENVIRONMENT, VALUES, runCase } = require("./functions-realistic/cases.js");

const DIRECTORY = path.join(__dirname, "functions-realistic", "functions");

/** Reads the functions of the definition as a runtime needs them. */
function readFunctions() {
  const manifest = JSON.parse(fs.readFileSync(path.join(DIRECTORY, "config.json"), "utf8"));
  const entries = manifest.map(({ name, run_as_system: isSystem = false }) => {
    const file = path.join(DIRECTORY, `${name}.js`);
    return [name, { file, isSystem, source: fs.readFileSync(file, "utf8") }];
  });
  return Object.fromEntries(entries);
}

const functions = readFunctions();

describe("realistic functions", () => {
  test("have no problems", () => {
    expect(createRuntime({ functions, directory: DIRECTORY }).runtime.check()).toEqual([]);
  });

  test("all have a case or are executed by one", () => {
    const called = new Set([...CASES.map(({ name }) => name), "roleOf", "writeTicket"]);
    expect([...called].sort()).toEqual(Object.keys(functions).sort());
  });

  test.each(CASES.map((item) => [item.name, item.title, item]))("%s %s", async (_name, _title, item) => {
    const sent = [];
    const http = {
      post: async (request) => {
        sent.push(request);
        return { status: "202 Accepted", statusCode: 202 };
      },
    };
    const options = { functions, http, values: VALUES, environment: ENVIRONMENT, directory: DIRECTORY };
    const { backend, call } = createRuntime(options);
    const isSystem = functions[item.name].isSystem || item.request?.isSystem === true;
    await runCase(item, {
      seed: async (data) => backend.seed(data),
      call: (name, args, request) => call(name, args, { ...request, isSystem }),
      read: async (collection) => backend.read(collection),
      requests: () => sent,
    });
  });
});
