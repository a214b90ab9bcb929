"use strict";

// Stores on MongoDB: connection strings, data sources in other stores, indexes and `migrate`.

const fs = require("node:fs");
const path = require("node:path");
const {
  COLLECTION,
  DATABASE,
  PASSWORD,
  QUICKSTART,
  Realm,
  STORE,
  customDataOf,
  eventually,
  logInNew,
  openBackend,
  openDefinition,
  openEmbedded,
  readAndWriteAll,
  temporaryDirectory,
  userkeep,
  writeDefinition,
} = require("./helpers.js");

const { openNative } = require("../lib/backend.js");
const { native, result } = require("../lib/bridge.js");
const { encode } = require("../lib/bson/index.js");

const { ObjectId, Decimal128 } = Realm.BSON;

/** Returns a `logger` that collects its lines, and `text()`, which joins them. */
function logOf() {
  const lines = [];
  return { logger: (level, message) => lines.push(`${level} ${message}`), text: () => lines.join("\n") };
}

describe("connection string", () => {
  test("is logged without the user and password, even if the server cannot be reached", async () => {
    const log = logOf();
    const store = "mongodb://ada:secret@127.0.0.1:9/?serverSelectionTimeoutMS=300&connectTimeoutMS=300";
    const app = openEmbedded({ store, logger: log.logger });
    expect(log.text()).toContain("on the store mongodb://***@127.0.0.1:9/");
    const credentials = Realm.Credentials.emailPassword({ email: "ada@example.com", password: PASSWORD });
    await expect(app.logIn(credentials)).rejects.toMatchObject({
      message: "the database is not available: none of its members can be reached; nothing was written",
      code: 4315,
    });
    expect(log.text()).not.toContain("secret");
    expect(() => openEmbedded({ id: "other", store: "mongodb://ada:secret@" })).toThrow(/connection string/);
    expect(() => openEmbedded({ id: "other", store: "mongo://ada:secret@host" })).toThrow(
      'The store must be "sqlite:PATH", "memory:", "mongodb://…" or "mongodb+srv://…", got "mongo://***@host"',
    );
  });

  test("backup and check refer to MongoDB's own tools", async () => {
    const backend = await openBackend({ definition: QUICKSTART, store: STORE });
    await expect(backend.backup(path.join(temporaryDirectory(), "copy"))).rejects.toThrow("mongodump");
    await expect(backend.check()).rejects.toThrow("`validate`");
  });
});

test("calls of a backend handle do not run on the main thread", async () => {
  const opened = openNative({ id: "test-app", definition: QUICKSTART, store: STORE, logger: null }, "id");
  try {
    const { bridge, handle } = opened.native;
    const find = () => native.callFunction(bridge, handle, 0, "missing", "find", encode({}));
    // The first call waits until the backend is ready. The second is rejected without a request:
    // if it ran on the main thread, it would return the error and not an id.
    for (let call = 0; call < 2; call++) {
      const started = find();
      expect(started).toEqual(expect.any(Number));
      await expect(result(started)).rejects.toThrow("Cannot access member 'find' of undefined");
    }
  } finally {
    await opened.close();
  }
});

/**
 * Writes a definition with these data sources, in which every user may read and write everything.
 */
function definitionOf(...services) {
  const rule = { roles: [readAndWriteAll], filters: [] };
  const files = services.map((name) => [
    [`data_sources/${name}/config.json`, { name, type: "mongodb-atlas", version: 1, config: {} }],
    [`data_sources/${name}/default_rule.json`, rule],
  ]);
  return writeDefinition(Object.fromEntries(files.flat()));
}

describe("data sources", () => {
  const things = (user, service) => user.mongoClient(service).db("app").collection("things");
  const countThere = async () => (await globalThis.databases.command("app", { count: "things" })).n;

  test("are in the store, except for those in the option dataSources", async () => {
    const definition = definitionOf("near", "far");
    const app = openEmbedded({ definition, store: "memory:", dataSources: { far: STORE } });
    const user = await logInNew(app);
    await things(user, "near").insertOne({ _id: 1 });
    expect(await countThere()).toBe(0);
    await things(user, "far").insertMany([{ _id: 1 }, { _id: 2 }]);
    expect(await countThere()).toBe(2);
    expect([await things(user, "near").count(), await things(user, "far").count()]).toEqual([1, 2]);
    // The data source's server holds no users.
    expect(await globalThis.databases.names()).not.toContain("userkeep_test-app");
    const backend = await openBackend({ definition, store: "memory:", dataSources: { far: STORE } });
    expect(await backend.collection("app", "things", { service: "far" }).count()).toBe(2);
    const stream = things(user, "far").watch();
    const next = stream.next();
    const writing = setInterval(() => things(user, "far").insertOne({}), 50);
    expect((await next).value.operationType).toBe("insert");
    clearInterval(writing);
    await stream.return();
  });

  test("can be set in the environment", async () => {
    process.env.USERKEEP_DATA_SOURCE_FAR_AWAY_2 = STORE;
    try {
      const app = openEmbedded({ definition: definitionOf("far-away.2"), store: "memory:" });
      await things(await logInNew(app), "far-away.2").insertOne({ _id: 1 });
      expect(await countThere()).toBe(1);
      const both = definitionOf("far-away.2", "far_away-2");
      expect(() => openEmbedded({ id: "both", definition: both, store: "memory:" })).toThrow(
        "USERKEEP_DATA_SOURCE_FAR_AWAY_2 stands for two data sources, 'far-away.2' and 'far_away-2'",
      );
      expect(() => openEmbedded({ id: "none", store: "memory:" })).toThrow(
        "USERKEEP_DATA_SOURCE_FAR_AWAY_2 stands for none of the definition's data sources",
      );
    } finally {
      delete process.env.USERKEEP_DATA_SOURCE_FAR_AWAY_2;
    }
    expect(() => openEmbedded({ store: "memory:", dataSources: { other: "memory:" } })).toThrow(
      "the definition has no data source 'other': it has 'mongodb-atlas'",
    );
    expect(() => openEmbedded({ store: "memory:", dataSources: { "mongodb-atlas": "file" } })).toThrow(
      'dataSources["mongodb-atlas"] must be "sqlite:PATH"',
    );
    expect(() => openEmbedded({ baseUrl: "http://localhost", store: undefined, dataSources: {} })).toThrow(
      "'baseUrl' is the URL of a remote backend",
    );
  });
});

describe("custom user data", () => {
  const indexes = async () => {
    const { cursor } = await globalThis.databases.command(DATABASE, { listIndexes: COLLECTION });
    return cursor.firstBatch.map(({ name }) => name).sort();
  };

  test("has an index on the user's id", async () => {
    await logInNew(openEmbedded());
    expect(await indexes()).toEqual(["_id_", "userId_1"]);
  });

  test("logs a warning if its index cannot be created", async () => {
    // The name is taken by an index on another field.
    const odd = { key: { other: 1 }, name: "userId_1" };
    await globalThis.databases.command(DATABASE, { createIndexes: COLLECTION, indexes: [odd] });
    const log = logOf();
    const user = await logInNew(openEmbedded({ logger: log.logger }));
    await customDataOf(user).insertOne({ userId: user.id, color: "pink" });
    expect(await user.refreshCustomData()).toMatchObject({ color: "pink" });
    await eventually(() => expect(log.text()).toMatch(/warn .*user id field of the custom user data has no index/));
  });
});

test("migrate copies a store to MongoDB and back, with users, documents and indexes", async () => {
  const directory = temporaryDirectory();
  const definition = openDefinition();
  const first = `sqlite:${path.join(directory, "first.sqlite")}`;
  const second = `sqlite:${path.join(directory, "second.sqlite")}`;
  const email = "ada@example.com";
  const credentials = Realm.Credentials.emailPassword({ email, password: PASSWORD });
  const app = openEmbedded({ definition, store: first, baseFilePath: directory });
  await app.emailPasswordAuth.registerUser({ email, password: PASSWORD });
  const user = await app.logIn(credentials);
  await customDataOf(user).insertOne({ userId: user.id, color: "pink" });
  const seeded = await openBackend({ definition, store: first });
  const people = seeded.collection("app", "people");
  await people.createIndexes([{ key: { name: 1 }, unique: true, sparse: true }, { key: { a: 1, b: -1 } }]);
  const documents = [
    { _id: new ObjectId(), name: "ä", long: 2 ** 40, double: 1.5, at: new Date(-1), tags: [null, { a: [] }] },
    { _id: 2, price: Decimal128.fromString("1.50"), b: Buffer.from([0, 255]) },
    ...Array.from({ length: 2500 }, (_, n) => ({ _id: `n${n}`, n })),
  ];
  await people.insertMany(documents);
  const before = await people.find({}, { sort: { _id: 1 } });
  await app.close();
  await seeded.close();

  const there = await userkeep("migrate", "--from", first, "--to", STORE);
  expect(there).toMatchObject({ status: 0, stdout: expect.stringMatching(/copied \d+ documents of \d+ collections/) });
  expect(there.stdout).toContain("both stores have the same documents, by count and hash");
  // A second run skips the documents that are there, as it does after an interruption.
  const again = await userkeep("migrate", "--from", first, "--to", STORE);
  expect(again).toMatchObject({
    status: 0,
    stdout: expect.stringMatching(/copied 0 documents .* \d{4} already existed/),
  });

  const onMongo = openEmbedded({ definition, store: STORE, baseFilePath: temporaryDirectory() });
  const same = await onMongo.logIn(credentials);
  expect(same.id).toBe(user.id);
  expect(same.customData).toMatchObject({ color: "pink" });
  await onMongo.close();

  const names = ["userkeep_test-app", DATABASE, "app"].flatMap((name) => ["--database", name]);
  const back = await userkeep("migrate", "--from", STORE, "--to", second, ...names);
  expect(back).toMatchObject({ status: 0, stdout: expect.stringContaining("by count and hash") });
  const backend = await openBackend({ definition, store: second });
  expect(await backend.collection("app", "people").find({}, { sort: { _id: 1 } })).toEqual(before);
  expect((await backend.collection("app", "people").indexes()).map(({ name }) => name).sort()).toEqual([
    "_id_",
    "a_1_b_-1",
    "name_1",
  ]);
  const returned = openEmbedded({ definition, store: second, baseFilePath: temporaryDirectory() });
  expect((await returned.logIn(credentials)).id).toBe(user.id);

  // Existing documents that differ are not overwritten.
  await backend.collection("app", "people").updateOne({ _id: 2 }, { $set: { price: 3 } });
  const conflict = await userkeep("migrate", "--from", first, "--to", second, "--database", "app");
  expect(conflict).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("_id: 2 }, but the stored document differs"),
  });
  await backend.collection("app", "people").deleteOne({ _id: 2 });
  await backend.collection("app", "people").insertOne({ _id: "of its own" });
  const more = await userkeep("migrate", "--from", first, "--to", second, "--database", "app");
  expect(more).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("2502 documents were sent and 2503 are there"),
  });
  const none = await userkeep("migrate", "--from", first, "--to", second, "--database", "nothing");
  expect(none.stderr).toContain("the source has no database 'nothing'");
  expect((await userkeep("migrate", "--to", second)).stderr).toContain("--from is missing");
  expect((await userkeep("migrate", "--from", first, "--to", "memory:")).stderr).toContain(
    "lost when the process ends",
  );
  expect(fs.existsSync(path.join(directory, "first.sqlite"))).toBe(true);
});
