"use strict";

const { execFile } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { promisify } = require("node:util");
const Realm = require("..");

const run = promisify(execFile);

const ROOT = path.resolve(__dirname, "..");
const QUICKSTART = path.join(ROOT, "examples/quickstart/userkeep");
const PASSWORD = "passw0rd";
const DATABASE = "custom-user-data-database";
const COLLECTION = "custom-user-data";

const directories = [];
const opened = [];
const servers = [];

/** Creates a directory that is deleted after the test. */
function temporaryDirectory() {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-"));
  directories.push(directory);
  return directory;
}

/**
 * Writes the quickstart's definition with changes to a temporary directory, and returns its path.
 * `files` maps paths to contents, which are JSON except in `.js` files; `null` deletes the file.
 */
function writeDefinition(files = {}) {
  const directory = path.join(temporaryDirectory(), "definition");
  fs.cpSync(QUICKSTART, directory, { recursive: true });
  for (const [name, contents] of Object.entries(files)) {
    const file = path.join(directory, name);
    if (contents === null) {
      fs.rmSync(file);
    } else {
      fs.mkdirSync(path.dirname(file), { recursive: true });
      fs.writeFileSync(file, name.endsWith(".js") ? contents : JSON.stringify(contents));
    }
  }
  return directory;
}

const rulesFile = (database, collection) => `data_sources/mongodb-atlas/${database}/${collection}/rules.json`;

const collectionFile = (database, collection) => `data_sources/mongodb-atlas/${database}/${collection}/collection.json`;

/** A `collection.json` that enables pre-images, which change events on MongoDB need. */
const preImages = { changeStreamPreAndPostImages: { enabled: true } };

/** The permissions of a role that allows everything. */
const everything = { read: true, write: true, insert: true, delete: true, search: true };

/** A role that allows every user everything. */
const readAndWriteAll = {
  name: "readAndWriteAll",
  apply_when: {},
  document_filters: { read: true, write: true },
  ...everything,
};

/**
 * Writes the quickstart's definition, with rules that let every user read and write all documents.
 */
function openDefinition() {
  return writeDefinition({
    "data_sources/mongodb-atlas/default_rule.json": { roles: [readAndWriteAll], filters: [] },
    [rulesFile(DATABASE, COLLECTION)]: null,
  });
}

/**
 * The backend that the suites test: "embedded", "remote" for one over HTTP, or "mongodb" for an
 * embedded one whose store is on MongoDB. Set by jest.config.js.
 */
const MODE = globalThis.USERKEEP_TEST_MODE ?? "embedded";

/** The store of tests that do not open it again. */
const STORE = MODE === "mongodb" ? process.env.MONGODB_URI : "memory:";

/** The store of tests that open it again; these also name a directory. */
const OWN_STORE = MODE === "mongodb" ? STORE : undefined;

/**
 * Returns options for an app that shares no data with the test's other apps, unless it names a
 * directory.
 */
function ofItsOwn({ baseFilePath }) {
  if (MODE !== "mongodb" || baseFilePath !== undefined) {
    return { id: "test-app", store: STORE };
  }
  const count = opened.filter((app) => app instanceof Realm.App).length;
  const metadata = { mode: Realm.MetadataMode.InMemory };
  return { id: count === 0 ? "test-app" : `test-app-${count + 1}`, store: STORE, metadata };
}

/**
 * Opens an embedded app, which is closed after the test. By default it has the quickstart's
 * definition and a store in memory.
 */
function openEmbedded(options = {}) {
  const app = new Realm.App({ definition: QUICKSTART, ...ofItsOwn(options), logger: null, ...options });
  opened.push(app);
  return app;
}

/** Starts a server that is closed after the test. */
async function serve(options = {}) {
  const server = await Realm.serve({
    app: "test-app",
    definition: QUICKSTART,
    store: STORE,
    port: 0,
    logger: null,
    ...options,
  });
  servers.push(server);
  return server;
}

/**
 * The servers of backends with a directory, by their options: an app that is reopened uses the
 * same one.
 */
const kept = new Map();

async function serveKept(options) {
  const key = JSON.stringify(options);
  if (!kept.has(key)) {
    kept.set(key, await serve(options));
  }
  return kept.get(key);
}

/** The options that concern the backend and not the client. */
const BACKEND_OPTIONS = [
  "maxDocuments",
  "maxAnswerBytes",
  "maxTimeMS",
  "maxWriteDocuments",
  "functions",
  "secrets",
  "logRetention",
];

/** Opens an app whose backend is reached over HTTP, with the options of an embedded one. */
async function openRemote({ definition = QUICKSTART, store, baseFilePath, ...options } = {}) {
  const isKept = baseFilePath !== undefined;
  const backend = { definition, store: isKept ? store : "memory:", baseFilePath };
  for (const name of BACKEND_OPTIONS) {
    backend[name] = options[name];
    delete options[name];
  }
  const { url } = isKept ? await serveKept(backend) : await serve({ ...backend, logger: options.logger ?? null });
  const app = new Realm.App({
    id: "test-app",
    logger: null,
    baseUrl: url,
    baseFilePath,
    ...(!isKept && { metadata: { mode: Realm.MetadataMode.InMemory } }),
    ...options,
  });
  opened.push(app);
  return app;
}

/**
 * Opens an app on the backend of `MODE`, and closes it after the test. By default it has the
 * quickstart's definition and a store in memory.
 */
async function openApp(options) {
  return MODE === "remote" ? openRemote(options) : openEmbedded(options);
}

/** Opens an app that stores its users and documents in a directory. */
async function openKept(directory, options = {}) {
  return openApp({ store: OWN_STORE, baseFilePath: directory, ...options });
}

async function openBackend(options) {
  const backend = await Realm.openBackend({ id: "test-app", store: OWN_STORE, logger: null, ...options });
  opened.push(backend);
  return backend;
}

/**
 * Opens an app and a backend handle on one store, and logs a user in. `files` are the definition's
 * files, as for `writeDefinition`.
 */
async function openWithRules(files) {
  const definition = writeDefinition(files);
  const directory = temporaryDirectory();
  const app = await openKept(directory, { definition });
  const backend = await openBackend({ definition, baseFilePath: directory });
  const user = await logInNew(app);
  const collection = (database, name) => user.mongoClient("mongodb-atlas").db(database).collection(name);
  return { app, backend, user, collection };
}

let registered = 0;

/** Registers an e-mail/password user and logs in. */
async function logInNew(app) {
  const email = `test${process.pid}${++registered}@example.com`;
  await app.emailPasswordAuth.registerUser({ email, password: PASSWORD });
  return app.logIn(Realm.Credentials.emailPassword({ email, password: PASSWORD }));
}

/**
 * Repeats a check until it does not throw, for 10 seconds at most. The native side logs a little
 * later than it responds.
 */
async function eventually(check) {
  const deadline = Date.now() + 10_000;
  for (;;) {
    try {
      return check();
    } catch (error) {
      if (Date.now() > deadline) {
        throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

/** Runs the command line; resolves to `{ status, stdout, stderr }`. */
async function userkeep(...args) {
  const env = { ...process.env, NODE_ENV: "production", USERKEEP_STORE: "" };
  try {
    const { stdout, stderr } = await run(process.execPath, [path.join(ROOT, "bin/userkeep.js"), ...args], { env });
    return { status: 0, stdout, stderr };
  } catch ({ code, stdout, stderr }) {
    return { status: code, stdout, stderr };
  }
}

/** Returns the collection of the quickstart's custom data. */
const customDataOf = (user) => user.mongoClient("mongodb-atlas").db(DATABASE).collection(COLLECTION);

if (MODE === "mongodb") {
  beforeEach(() => globalThis.databases.dropOwn());
}

afterEach(async () => {
  await Promise.all(opened.splice(0).map((app) => app.close()));
  await Promise.all(servers.splice(0).map((server) => server.close()));
  kept.clear();
  await Realm.shutdown();
  for (const directory of directories.splice(0)) {
    fs.rmSync(directory, { recursive: true, force: true });
  }
});

module.exports = {
  COLLECTION,
  DATABASE,
  MODE,
  OWN_STORE,
  PASSWORD,
  QUICKSTART,
  ROOT,
  Realm,
  STORE,
  collectionFile,
  customDataOf,
  eventually,
  everything,
  logInNew,
  openApp,
  openBackend,
  openDefinition,
  openEmbedded,
  openKept,
  openWithRules,
  preImages,
  readAndWriteAll,
  rulesFile,
  serve,
  temporaryDirectory,
  userkeep,
  writeDefinition,
};
