"use strict";

// The realistic functions through an app: in process, over HTTP and on MongoDB.

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const {
  COLLECTION,
  DATABASE,
  PASSWORD,
  Realm,
  openBackend,
  openKept,
  readAndWriteAll,
  temporaryDirectory,
  writeDefinition,
} = require("./helpers.js");
const { CASES, ENVIRONMENT, VALUES, runCase } = require("./functions-realistic/cases.js");

const DIRECTORY = path.join(__dirname, "functions-realistic", "functions");

/**
 * The functions that need something that the backend does not implement yet: what that is. Their
 * cases run only with the backend of functions-realistic.test.js.
 */
const NOT_YET = { monthlyReport: "$merge" };

/** The functions whose cases run as the system user: those of triggers and webhooks. */
const OF_SYSTEM = new Set(CASES.filter(({ request }) => request?.isSystem).map(({ name }) => name));

/** Returns the manifest, in which users can call every function that has a case. */
function manifest() {
  const entries = JSON.parse(fs.readFileSync(path.join(DIRECTORY, "config.json"), "utf8"));
  return entries.map((entry) =>
    OF_SYSTEM.has(entry.name)
      ? { name: entry.name, run_as_user_id_script_source: "exports = () => ({ runAsSystem: true });" }
      : entry,
  );
}

function definitionWith(values) {
  const sources = fs.readdirSync(DIRECTORY).filter((name) => name.endsWith(".js"));
  const files = [
    ...sources.map((name) => [`functions/${name}`, fs.readFileSync(path.join(DIRECTORY, name), "utf8")]),
    ...Object.entries(values).map(([name, value]) => [`values/${name}.json`, { name, value }]),
  ];
  return writeDefinition({
    ...Object.fromEntries(files),
    "functions/config.json": manifest(),
    "data_sources/mongodb-atlas/default_rule.json": { roles: [readAndWriteAll], filters: [] },
    "root_config.json": { app_id: "test-app", environment: ENVIRONMENT.tag },
    [`environments/${ENVIRONMENT.tag}.json`]: { values: ENVIRONMENT.values },
  });
}

const servers = [];

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

async function textOf(stream) {
  let text = "";
  for await (const part of stream) {
    text += part;
  }
  return text;
}

/** Starts a mail server. Returns its address, and its requests as functions send them. */
async function startMailServer() {
  const requests = [];
  const server = http.createServer(async (request, response) => {
    const { authorization, "content-type": type } = request.headers;
    requests.push({
      url: `${VALUES.mailUrl}${request.url}`,
      headers: { Authorization: [authorization] },
      body: JSON.parse(await textOf(request)),
      encodeBodyAsJSON: type === "application/json",
    });
    response.writeHead(202).end();
  });
  servers.push(server);
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, requests };
}

/** Registers a user of the cases and logs in. */
async function logIn(app, email) {
  await app.emailPasswordAuth.registerUser({ email, password: PASSWORD });
  return app.logIn(Realm.Credentials.emailPassword({ email, password: PASSWORD }));
}

/** Replaces the ids of the cases' users on every level of a value. */
function withIds(value, ids) {
  if (typeof value === "string") {
    return ids[value] ?? value;
  }
  if (Array.isArray(value)) {
    return value.map((item) => withIds(item, ids));
  }
  if (value === null || typeof value !== "object" || Object.getPrototypeOf(value) !== Object.prototype) {
    return value;
  }
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, withIds(field, ids)]));
}

/** Runs a case through an app. */
async function runThroughApp(item) {
  const mail = await startMailServer();
  const definition = definitionWith({ ...VALUES, mailUrl: mail.url });
  const baseFilePath = temporaryDirectory();
  const app = await openKept(baseFilePath, { definition });
  const messages = [];
  const suffix = ` function=${item.name}`;
  const logger = (level, text) => {
    // On the level `debug`, the backend logs the call itself.
    if (level !== "debug" && text.endsWith(suffix)) {
      messages.push({ text: text.slice(0, -suffix.length) });
    }
  };
  const backend = await openBackend({ definition, baseFilePath, logger });
  const users = { ada: await logIn(app, "ada@example.com"), bob: await logIn(app, "bob@example.com") };
  const ids = Object.fromEntries(Object.entries(users).map(([name, { id }]) => [name, id]));
  await backend.collection(DATABASE, COLLECTION).insertOne({ userId: ids.ada, role: "agent" });
  const { request, ...rest } = item;
  // A function without a result returns null to the SDK.
  const adapted = { ...withIds({ ...rest, result: rest.result ?? null }, ids), request };
  await runCase(adapted, {
    seed: async (data) => {
      const filled = Object.entries(data).filter(([, documents]) => documents.length > 0);
      await Promise.all(filled.map(([name, documents]) => backend.collection("app", name).insertMany(documents)));
    },
    call: (name, args, { user }) => {
      const caller = users[user?.id ?? "ada"];
      return caller.callFunction(name, ...args).then(
        (value) => ({ value, messages }),
        (error) => Promise.reject(Object.assign(error, { messages })),
      );
    },
    read: (collection) => backend.collection("app", collection).find({}, { sort: { _id: 1 } }),
    requests: () => mail.requests,
  });
}

const isNotYet = ({ name }) => Object.hasOwn(NOT_YET, name);
const named = (cases) => cases.map((item) => [item.name, item.title, item]);

describe("realistic functions through an app", () => {
  test.each(named(CASES.filter((item) => !isNotYet(item))))("%s %s", async (_name, _title, item) => {
    await runThroughApp(item);
  });

  // A case that passes must leave the list.
  test.each(named(CASES.filter(isNotYet)))("%s cannot run yet: %s", async (name, _title, item) => {
    await expect(runThroughApp(item)).rejects.toThrow(NOT_YET[name]);
  });
});
