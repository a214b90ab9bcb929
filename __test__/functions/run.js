"use strict";

const path = require("node:path");
const { Runtime } = require("../../lib/functions/runtime.js");
const { fakeBackend } = require("./fake-backend.js");

const USER = { id: "6500000000000000000000aa", type: "normal", data: { email: "ada@example.com" }, custom_data: {} };

const APP = { id: "6500000000000000000000ff", clientAppId: "app-abcde", name: "app", lastDeployed: "2026-01-01" };

/** Turns sources, or definitions without a file, into definitions of functions. */
const definitions = (functions) =>
  Object.entries(functions).map(([name, entry]) => {
    const definition = typeof entry === "string" ? { source: entry } : entry;
    return { name, file: path.join(__dirname, `${name}.js`), ...definition };
  });

/** Creates a runtime with a backend in memory, and `call(name, args, request)`. */
function createRuntime({ functions = {}, data, ...options } = {}) {
  const backend = options.backend ?? fakeBackend(data);
  const records = [];
  const runtime = new Runtime({
    app: APP,
    environment: { tag: "", values: {} },
    services: ["mongodb-atlas"],
    functions: definitions(functions),
    directory: __dirname,
    log: (level, record) => records.push({ level, ...record }),
    ...options,
    backend,
  });
  const call = (name, args = [], request = {}) => runtime.run({ id: 1, name, arguments: args, user: USER, ...request });
  return { runtime, backend, records, call };
}

/**
 * Runs one function and returns its result, its console lines, and the backend.
 *
 * `options` are those of the runtime, `functions` for others that it executes, `data` for the
 * backend, and `request` for the fields of the call.
 */
async function runFunction(source, args = [], { request, functions, ...options } = {}) {
  const { call, backend, records } = createRuntime({ ...options, functions: { ...functions, main: source } });
  const result = await call("main", args, request);
  return { ...result, backend, records, calls: backend.calls };
}

/** Returns the source of a function that runs statements with `collection` of the data source. */
const withCollection = (statements) => `exports = async function (...args) {
  const client = context.services.get("mongodb-atlas");
  const collection = client.db("app").collection("items");
  ${statements}
};`;

module.exports = { APP, USER, createRuntime, runFunction, withCollection };
