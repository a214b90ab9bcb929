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

/** A directory that is gone after the test. */
function temporaryDirectory() {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-"));
  directories.push(directory);
  return directory;
}

/** Writes an app definition, from its files' contents by their paths; what is not given is the quickstart's. */
function writeDefinition(files = {}) {
  const directory = path.join(temporaryDirectory(), "definition");
  fs.cpSync(QUICKSTART, directory, { recursive: true });
  for (const [name, contents] of Object.entries(files)) {
    const file = path.join(directory, name);
    if (contents === null) {
      fs.rmSync(file);
    } else {
      fs.mkdirSync(path.dirname(file), { recursive: true });
      fs.writeFileSync(file, JSON.stringify(contents));
    }
  }
  return directory;
}

const rulesFile = (database, collection) => `data_sources/mongodb-atlas/${database}/${collection}/rules.json`;

const collectionFile = (database, collection) => `data_sources/mongodb-atlas/${database}/${collection}/collection.json`;

/** A `collection.json` for change events that carry the version that they are about, on MongoDB too. */
const preImages = { changeStreamPreAndPostImages: { enabled: true } };

/** The permissions of a role that allows everything. */
const everything = { read: true, write: true, insert: true, delete: true, search: true };

/** A role that allows everything to everybody. */
const readAndWriteAll = {
  name: "readAndWriteAll",
  apply_when: {},
  document_filters: { read: true, write: true },
  ...everything,
};

/** The quickstart's definition, where everybody may read and write every document of every collection. */
function openDefinition() {
  return writeDefinition({
    "data_sources/mongodb-atlas/default_rule.json": { roles: [readAndWriteAll], filters: [] },
    [rulesFile(DATABASE, COLLECTION)]: null,
  });
}

/** Where the backend of the suites is: "embedded", "remote", or "mongodb" for embedded on that store (see jest.config.js). */
const MODE = globalThis.USERKEEP_TEST_MODE ?? "embedded";

/** The store of tests that keep nothing but for themselves. */
const STORE = MODE === "mongodb" ? process.env.MONGODB_URI : "memory:";

/** The store of tests that find again what they kept, and so name a directory. */
const OWN_STORE = MODE === "mongodb" ? STORE : undefined;

/** The store and the id of an app that has nothing in common with the others of its test, unless it names a directory. */
function ofItsOwn({ baseFilePath }) {
  if (MODE !== "mongodb" || baseFilePath !== undefined) {
    return { id: "test-app", store: STORE };
  }
  const count = opened.filter((app) => app instanceof Realm.App).length;
  const metadata = { mode: Realm.MetadataMode.InMemory };
  return { id: count === 0 ? "test-app" : `test-app-${count + 1}`, store: STORE, metadata };
}

/** An app in this process, closed after the test: the quickstart's definition in memory, unless the options say otherwise. */
function openEmbedded(options = {}) {
  const app = new Realm.App({ definition: QUICKSTART, ...ofItsOwn(options), logger: null, ...options });
  opened.push(app);
  return app;
}

/** A server that is closed after the test. */
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

/** The servers of backends that are kept, by what they were opened with: an app that is opened again finds its own. */
const kept = new Map();

async function serveKept(options) {
  const key = JSON.stringify(options);
  if (!kept.has(key)) {
    kept.set(key, await serve(options));
  }
  return kept.get(key);
}

/** An app of a backend elsewhere, with the options of one in this process. */
async function openRemote({ definition = QUICKSTART, store, baseFilePath, ...options } = {}) {
  const isKept = baseFilePath !== undefined;
  const backend = { definition, store: isKept ? store : "memory:", baseFilePath };
  for (const limit of ["maxDocuments", "maxAnswerBytes", "maxTimeMS", "maxWriteDocuments"]) {
    backend[limit] = options[limit];
    delete options[limit];
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

/** An app that is closed after the test: the quickstart's definition in memory, unless the options say otherwise. */
async function openApp(options) {
  return MODE === "remote" ? openRemote(options) : openEmbedded(options);
}

/** An app that keeps its users and documents in a directory. */
async function openKept(directory, options = {}) {
  return openApp({ store: OWN_STORE, baseFilePath: directory, ...options });
}

async function openBackend(options) {
  const backend = await Realm.openBackend({ id: "test-app", store: OWN_STORE, logger: null, ...options });
  opened.push(backend);
  return backend;
}

/** Opens an app and its backend on one store, with definition files as `writeDefinition` takes them, and logs a user in. */
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

/** Waits for a check to hold: what the native side logs arrives a little later than what it answers. */
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

/** Runs the command line; its exit status and what it has printed. */
async function userkeep(...args) {
  const env = { ...process.env, NODE_ENV: "production", USERKEEP_STORE: "" };
  try {
    const { stdout, stderr } = await run(process.execPath, [path.join(ROOT, "bin/userkeep.js"), ...args], { env });
    return { status: 0, stdout, stderr };
  } catch ({ code, stdout, stderr }) {
    return { status: code, stdout, stderr };
  }
}

/** The collection of the quickstart's custom data. */
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
