"use strict";

const { execFile } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { promisify } = require("node:util");
const {
  COLLECTION,
  DATABASE,
  Realm,
  QUICKSTART,
  ROOT,
  customDataOf,
  eventually,
  logInNew,
  openEmbedded,
  openBackend,
  temporaryDirectory,
  writeDefinition,
} = require("./helpers.js");

const { App, Credentials, MetadataMode } = Realm;

/** Opens an embedded app that stores its users and documents in a directory. */
const openKept = (directory, options) => openEmbedded({ store: undefined, baseFilePath: directory, ...options });

const variables = ["USERKEEP_BASE_URL", "USERKEEP_DEFINITION", "USERKEEP_STORE", "NODE_ENV"];
const before = Object.fromEntries(variables.map((name) => [name, process.env[name]]));
const workingDirectory = process.cwd();

afterEach(() => {
  process.chdir(workingDirectory);
  for (const name of variables) {
    if (before[name] === undefined) {
      delete process.env[name];
    } else {
      process.env[name] = before[name];
    }
  }
});

test("rejects an invalid configuration with the option and the reason", () => {
  expect(() => new App()).toThrow("Expected 'config' to be an object, got undefined");
  expect(() => new App(1234)).toThrow("Expected 'config' to be an object, got a number");
  expect(() => new App(null)).toThrow("Expected 'config' to be an object, got null");
  expect(() => new App({})).toThrow("Expected 'id' to be a string, got undefined");
  expect(() => new App({ id: 5 })).toThrow("Expected 'id' to be a string, got a number");
  expect(() => new App("")).toThrow("empty string");
  expect(() => openEmbedded({ timeout: "1" })).toThrow("Expected 'timeout' to be a number, got a string");
  expect(() => openEmbedded({ store: "postgres://x" })).toThrow(
    'The store must be "sqlite:PATH", "memory:", "mongodb://…" or "mongodb+srv://…", got "postgres://x"',
  );
  expect(() => openEmbedded({ maxDocuments: -1 })).toThrow(
    "Expected 'maxDocuments' to be a positive whole number, got a number (-1)",
  );
  expect(() => openEmbedded({ logger: "loud" })).toThrow("Expected 'logger' to be");
  expect(() => openEmbedded({ baseUrl: "http://localhost" })).toThrow(
    "'baseUrl' is the URL of a remote backend and cannot be used with 'definition'",
  );
  for (const baseUrl of ["", "localhost:3000", "ftp://localhost", "http://", "http://user:secret@localhost"]) {
    const open = () => new App({ id: "x", baseUrl });
    expect(open).toThrow("Expected 'baseUrl' to begin with http:// or https:// and to name a host, and no user");
    expect(open).not.toThrow("secret");
  }
  expect(() => openEmbedded({ baseUrl: 5 })).toThrow("Expected 'baseUrl' to be a string, got a number");
  expect(() => openEmbedded({ metadata: { mode: "sometimes" } })).toThrow("metadata.mode");
  expect(() => openEmbedded({ metadata: { mode: MetadataMode.Encryption } })).toThrow("encryptionKey is required");
  expect(() =>
    openEmbedded({ metadata: { mode: MetadataMode.Encryption, encryptionKey: new ArrayBuffer(63) } }),
  ).toThrow("64 bytes, got 63");
  expect(() => new Realm()).toThrow("belongs to the Realm database");
});

test("rejects an invalid definition with the file and JSON path of every error", () => {
  const definition = writeDefinition({
    "auth/custom_user_data.json": { enabled: true },
    "data_sources/mongodb-atlas/db/c/rules.json": { roles: [{ name: "r", apply_when: { a: { "%size": 1 } } }] },
    "data_sources/mongodb-atlas/db/c/schema.json": { bsonType: "object" },
  });
  expect(() => openEmbedded({ definition })).toThrow(
    /custom_user_data\.json at \$\.database_name[\s\S]*rules\.json at \$\.roles\[0\]\.apply_when\.a: the operator %size[\s\S]*schema\.json/,
  );
  expect(() => openEmbedded({ definition: path.join(definition, "missing") })).toThrow("cannot be read");
});

test("logs the definition and the store in use, and everything that is ignored", () => {
  const lines = [];
  const definition = writeDefinition({ "triggers/t.json": {}, "root_config.json": { app_id: "other-abcde" } });
  openEmbedded({ definition, colour: "red", logger: (level, message) => lines.push(`${level}: ${message}`) });
  expect(lines).toEqual([
    expect.stringMatching(/^info: app 'test-app' runs .*definition on the store (memory|mongodb:.*)$/),
    expect.stringMatching(/^warn: the definition belongs to the app 'other-abcde'/),
    "warn: unknown option 'colour' has no effect",
    "warn: triggers/t.json: triggers do not run yet",
  ]);
  const calls = [];
  openEmbedded({ logger: { info: (message) => calls.push(message), log: () => {} } });
  expect(calls).toHaveLength(1);
});

test("logs the reason of a denial, which the user's error does not contain", async () => {
  const lines = [];
  const app = openEmbedded({ logger: (level, message) => lines.push([level, message]) });
  const user = await logInNew(app);
  const collection = user.mongoClient("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data");
  await expect(collection.insertOne({ userId: "another-user" })).rejects.toThrow(/^insert not permitted$/);
  await eventually(() => expect(lines).toContainEqual(["debug", expect.stringContaining('reason="no role applies"')]));
  expect(JSON.stringify(lines)).not.toContain("passw0rd");
});

test("calls complete even if the logger throws", async () => {
  const script = `const Realm = require("userkeep");
    const thrown = [];
    process.on("uncaughtException", (error) => thrown.push(error.message));
    let started = false;
    const logger = () => { if (started) throw new Error("the logger's own"); };
    const app = new Realm.App({ id: "x", store: "memory:", logger });
    started = true;
    (async () => {
      const user = await app.logIn(Realm.Credentials.anonymous());
      const collection = user.mongoClient("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data");
      const writes = Array.from({ length: 20 }, () => collection.insertOne({ userId: "another-user" }));
      const settled = await Promise.allSettled(writes);
      setTimeout(() => console.log(settled.length, new Set(settled.map(({ reason }) => reason.message)), new Set(thrown)), 50);
    })();`;
  const { stdout } = await promisify(execFile)(process.execPath, ["-e", script], { cwd: ROOT, timeout: 20_000 });
  expect(stdout).toBe("20 Set(1) { 'insert not permitted' } Set(1) { \"the logger's own\" }\n");
});

test("options override the environment, which overrides the defaults", async () => {
  const directory = temporaryDirectory();
  process.chdir(directory);
  const store = path.join(directory, "elsewhere/app.sqlite");
  process.env.USERKEEP_DEFINITION = QUICKSTART;
  process.env.USERKEEP_STORE = `sqlite:${store}`;
  const app = new App({ id: "env-app", logger: null });
  expect(fs.existsSync(store)).toBe(false);
  await app.logIn(Credentials.anonymous());
  expect(fs.existsSync(store)).toBe(true);
  expect(fs.existsSync(path.join(directory, ".userkeep/env-app.session"))).toBe(true);
  await app.close();

  process.env.USERKEEP_STORE = "nonsense";
  expect(() => new App({ id: "env-app", logger: null })).toThrow('"nonsense"');
  const lines = [];
  await new App({ id: "env-app", store: "memory:", logger: (_level, message) => lines.push(message) }).close();
  expect(lines[0]).toContain(QUICKSTART);

  delete process.env.USERKEEP_DEFINITION;
  delete process.env.USERKEEP_STORE;
  await new App({ id: "env-app", store: "memory:", logger: (_level, message) => lines.push(message) }).close();
  expect(lines.at(-1)).toContain("the built-in development definition");
  fs.cpSync(QUICKSTART, path.join(directory, "userkeep"), { recursive: true });
  await new App({ id: "env-app", store: "memory:", logger: (_level, message) => lines.push(message) }).close();
  expect(lines.join("\n")).toContain(`runs ${path.join(fs.realpathSync(directory), "userkeep")}`);

  fs.rmSync(path.join(directory, "userkeep"), { recursive: true });
  process.env.NODE_ENV = "production";
  expect(() => new App({ id: "env-app", store: "memory:" })).toThrow("not used when NODE_ENV is 'production'");
});

test("writes no file before the first change, and then only files private to the owner", async () => {
  const directory = temporaryDirectory();
  const app = openKept(directory);
  expect(app.currentUser).toBeNull();
  expect(app.allUsers).toEqual({});
  await expect(app.logIn(Credentials.jwt("x"))).rejects.toThrow();
  expect(fs.readdirSync(directory)).toEqual([]);
  await app.logIn(Credentials.anonymous());
  const kept = path.join(directory, ".userkeep");
  expect(fs.readFileSync(path.join(kept, ".gitignore"), "utf8")).toBe("*\n");
  for (const name of fs.readdirSync(kept).filter((name) => name !== ".gitignore")) {
    expect([name, fs.statSync(path.join(kept, name)).mode & 0o077]).toEqual([name, 0]);
  }
  await app.close();
});

test("an app id may contain any characters", async () => {
  const directory = temporaryDirectory();
  const app = openKept(directory, { id: "../a/b c" });
  const user = await app.logIn(Credentials.anonymous());
  expect(fs.existsSync(path.join(directory, ".userkeep/..%2Fa%2Fb%20c.sqlite"))).toBe(true);
  await app.close();
  expect(openKept(directory, { id: "../a/b c" }).currentUser.id).toBe(user.id);
});

test("apps with one id share users and backend, and must have the same settings", async () => {
  const directory = temporaryDirectory();
  const one = openKept(directory);
  const two = openKept(directory);
  const user = await logInNew(one);
  expect(two.currentUser.id).toBe(user.id);
  expect(() => openKept(temporaryDirectory())).toThrow("is open with other settings");
  expect(App.get("test-app")).toBe(one);
  expect(App.getApp("test-app")).toBe(one);

  await one.close();
  await one.close();
  expect(() => one.currentUser).toThrow("The app has been closed");
  await expect(one.logIn(Credentials.anonymous())).rejects.toThrow("The app has been closed");
  expect(await two.currentUser.refreshCustomData()).toEqual({});
  await two.close();
  await openKept(temporaryDirectory()).close();

  const [memory, another] = [openEmbedded(), openEmbedded()];
  await logInNew(memory);
  expect(another.currentUser).toBeNull();
});

test("an id without a configuration opens the app that is already open, with its settings", async () => {
  const directory = temporaryDirectory();
  const one = openKept(directory, { maxDocuments: 7 });
  const user = await logInNew(one);
  const two = new App("test-app");
  expect(two.currentUser.id).toBe(user.id);
  // A configuration object means the default settings, which differ from the open app's.
  expect(() => new App({ id: "test-app" })).toThrow("is open with other settings");
  await one.close();
  expect(await two.currentUser.refreshCustomData()).toEqual({});
  await two.close();
  expect(() => two.currentUser).toThrow("The app has been closed");

  // No app with this id is open any more, so the id alone opens one with the default settings.
  process.chdir(temporaryDirectory());
  const alone = new App({ id: "test-app", logger: null });
  expect(alone.currentUser).toBeNull();
  await alone.close();
});

test("an id alone joins the open app after the first app object of it is closed or collected", async () => {
  for (const store of [undefined, "memory:"]) {
    const directory = temporaryDirectory();
    process.chdir(directory);
    const first = openKept(directory, { store });
    const user = await logInNew(first);
    const second = new App("test-app");
    expect(App.get("test-app")).toBe(first);
    await first.close();
    expect(App.get("test-app")).toBe(second);
    const third = new App("test-app");
    expect([second, third].map((app) => app.currentUser.id)).toEqual([user.id, user.id]);
    await second.close();
    expect(App.get("test-app")).toBe(third);
    await third.close();
    expect(fs.existsSync(path.join(directory, ".userkeep"))).toBe(store === undefined);
    // No app of the id is open, so an id alone opens another one.
    const fourth = new App({ id: "test-app", store: "memory:", logger: null });
    expect(fourth.currentUser).toBeNull();
    await fourth.close();
  }

  const script = `const Realm = require(${JSON.stringify(ROOT)});
    (async () => {
      new Realm.App({ id: "z", store: "memory:", logger: null });
      const kept = new Realm.App("z");
      await kept.logIn(Realm.Credentials.anonymous());
      for (let turn = 0; turn < 5; turn++) {
        globalThis.gc?.();
        await new Promise((resolve) => setImmediate(resolve));
      }
      const same = [new Realm.App("z"), Realm.App.get("z")].map((app) => app.currentUser?.id === kept.currentUser.id);
      console.log(typeof globalThis.gc, same.join());
      await Realm.shutdown();
    })();`;
  for (const [flags, gc] of [
    [["--expose-gc"], "function"],
    [[], "undefined"],
  ]) {
    const directory = temporaryDirectory();
    const { stdout } = await promisify(execFile)(process.execPath, [...flags, "-e", script], { cwd: directory });
    expect(stdout).toBe(`${gc} true,true\n`);
    expect(fs.readdirSync(directory)).toEqual([]);
  }
});

test("apps and backends with the same id and definition share a store in memory", async () => {
  const options = { definition: QUICKSTART, store: "memory:" };
  const app = openEmbedded(options);
  const backend = await openBackend(options);
  const limited = await openBackend({ ...options, maxDocuments: 1, maxTimeMS: 5_000 });
  const others = [
    await openBackend({ ...options, id: "another" }),
    await openBackend({ ...options, definition: writeDefinition() }),
  ];
  const countOn = (opened) => opened.collection(DATABASE, COLLECTION).count();
  const user = await logInNew(app);
  await customDataOf(user).insertOne({ userId: user.id });
  await backend.collection(DATABASE, COLLECTION).insertOne({ userId: "another" });
  expect(await countOn(limited)).toBe(2);
  expect(await Promise.all(others.map(countOn))).toEqual([0, 0]);
  expect(await customDataOf(user).count()).toBe(1);

  // The store lasts until the last of them is closed.
  await app.close();
  expect(await countOn(backend)).toBe(2);
  await backend.close();
  expect(await countOn(limited)).toBe(2);
  await limited.close();
  expect(await countOn(await openBackend(options))).toBe(0);
});

test("clearTestState needs the flag ALLOW_CLEAR_TEST_STATE", async () => {
  expect(() => Realm.clearTestState()).toThrow("ALLOW_CLEAR_TEST_STATE");
  Realm.flags.ALLOW_CLEAR_TEST_STATE = true;
  const app = openEmbedded();
  await Realm.clearTestState();
  Realm.flags.ALLOW_CLEAR_TEST_STATE = false;
  expect(() => app.currentUser).toThrow("The app has been closed");
});

test("shutdown closes every app", async () => {
  const app = openEmbedded();
  const user = await logInNew(app);
  const collection = user.mongoClient("mongodb-atlas").db("a").collection("b");
  await Realm.shutdown();
  expect(() => app.currentUser).toThrow("The app has been closed");
  expect(() => user.customData).toThrow("The app has been closed");
  await expect(collection.find()).rejects.toThrow("The app has been closed");
  await expect(user.refreshCustomData()).rejects.toThrow("The app has been closed");
});

test("the error of a store that cannot be opened suggests memory:", async () => {
  const directory = temporaryDirectory();
  fs.writeFileSync(path.join(directory, "file"), "");
  const open = () =>
    openEmbedded({ store: `sqlite:${path.join(directory, "file/app.sqlite")}`, baseFilePath: directory });
  const attempt = async () => open().logIn(Credentials.anonymous());
  await expect(attempt()).rejects.toThrow(/cannot open the store .*memory:/);
});

test("a backend handle reads and writes all collections except the backend's own", async () => {
  const definition = writeDefinition({ "root_config.json": { app_id: "from-definition" } });
  const backend = await openBackend({ id: undefined, definition, store: "memory:" });
  const collection = backend.collection("any", "thing");
  await collection.insertMany([{ n: 1 }, { n: 2 }]);
  expect(await collection.count({ n: { $gt: 0 } })).toBe(2);
  await expect(backend.collection("userkeep_from-definition", "users").find()).rejects.toThrow("no rule exists");
  await expect(backend.collection("any", "thing", { service: "other" }).find()).rejects.toThrow(
    "Cannot access member 'find' of undefined",
  );
  await backend.close();
  await expect(collection.find()).rejects.toThrow("The backend has been closed");
  await expect(
    Realm.openBackend({ definition: writeDefinition({ "root_config.json": {} }), store: "memory:" }),
  ).rejects.toThrow("The option 'id' is required");
});

test("durability is process or full, and both preserve writes over a close", async () => {
  expect(
    () => new Realm.App({ id: "test-app", definition: QUICKSTART, store: "memory:", durability: "always" }),
  ).toThrow(`Expected 'durability' to be "process" or "full", got a string ("always")`);
  const store = `sqlite:${path.join(temporaryDirectory(), "app.sqlite")}`;
  for (const durability of ["process", "full"]) {
    const backend = await openBackend({ definition: QUICKSTART, store, durability });
    await backend.collection("app", "things").insertOne({ _id: durability });
    await backend.close();
  }
  const backend = await openBackend({ definition: QUICKSTART, store });
  expect(await backend.collection("app", "things").find()).toEqual([{ _id: "process" }, { _id: "full" }]);
  await backend.close();
});
