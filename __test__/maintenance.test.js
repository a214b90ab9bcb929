"use strict";

// Maintenance of a store, from JavaScript and on the command line: backup, export, import, doctor.

const fs = require("node:fs");
const path = require("node:path");
const independent = [require("bson4"), require("bson5"), require("bson6")];
const {
  QUICKSTART,
  Realm,
  customDataOf,
  logInNew,
  openBackend,
  openDefinition,
  openKept,
  temporaryDirectory,
  userkeep,
} = require("./helpers.js");

const { ObjectId, Decimal128, UUID } = Realm.BSON;

const people = [
  { _id: new ObjectId(), name: "ä", at: new Date(-1), n: 1, long: 2 ** 40, double: 1.5, tags: ["a", { b: null }] },
  { _id: 2, price: Decimal128.fromString("1.50"), id: new UUID(), bytes: Buffer.from([0, 255]) },
];

/** Opens a store with a user, custom data and a collection `people` with an index. */
async function inUse() {
  const directory = temporaryDirectory();
  const definition = openDefinition();
  const app = await openKept(directory, { definition });
  const user = await logInNew(app);
  await customDataOf(user).insertOne({ userId: user.id, color: "pink" });
  const backend = await openBackend({ definition, baseFilePath: directory });
  const collection = backend.collection("app", "people");
  await collection.createIndexes([{ key: { name: 1 }, unique: true, sparse: true }]);
  await collection.insertMany(people);
  return { directory, definition, app, user, backend, file: path.join(directory, ".userkeep/test-app.sqlite") };
}

/** Reads the documents of a dumped collection with the given version of the bson package. */
function readDump(file, { deserialize }) {
  const bytes = fs.readFileSync(file);
  const documents = [];
  for (let at = 0; at < bytes.length; ) {
    const size = bytes.readInt32LE(at);
    documents.push(deserialize(bytes.subarray(at, at + size)));
    at += size;
  }
  return documents;
}

test("backup copies a store in use, and an app can open the copy", async () => {
  const { directory, definition, user, backend, file } = await inUse();
  const copy = path.join(directory, "copies/copy.sqlite");
  const made = await userkeep("backup", copy, "--store", `sqlite:${file}`);
  expect(made).toEqual({ status: 0, stdout: `copied ${file}\n`, stderr: "" });
  await customDataOf(user).updateOne({ userId: user.id }, { $set: { color: "blue" } });
  const again = await userkeep("backup", copy, "--store", `sqlite:${file}`);
  expect([again.status, again.stderr]).toEqual([
    1,
    `userkeep: cannot write the backup ${copy}: the file exists already\n`,
  ]);
  const restored = await Realm.openBackend({ id: "restored", definition, store: `sqlite:${copy}`, logger: null });
  const custom = await restored.collection("custom-user-data-database", "custom-user-data").find();
  expect(custom).toMatchObject([{ userId: user.id, color: "pink" }]);
  expect(await restored.collection("app", "people").find()).toEqual(await backend.collection("app", "people").find());
  await restored.close();
  expect(fs.statSync(copy).mode & 0o777).toBe(0o600);
  expect(await userkeep("doctor", "--store", `sqlite:${copy}`)).toMatchObject({ status: 0 });
});

test("export writes BSON and metadata like mongodump, and import reads them", async () => {
  const { directory, file, user, app } = await inUse();
  const dump = path.join(directory, "dump");
  const made = await userkeep("export", dump, "--store", `sqlite:${file}`);
  expect([made.status, made.stderr]).toEqual([0, ""]);
  // Two people, the custom data, the user, the session, its entry in the log, the signing key and
  // the resume token key.
  expect(made.stdout).toBe(`exported 8 documents from ${file}\n`);
  for (const bson of independent) {
    const [first, second] = readDump(path.join(dump, "app/people.bson"), bson);
    expect(first).toMatchObject({ name: "ä", at: new Date(-1), n: 1, double: 1.5, tags: ["a", { b: null }] });
    expect(first._id.toHexString()).toBe(people[0]._id.toHexString());
    expect(Number(first.long)).toBe(2 ** 40);
    expect([second._id, String(second.price)]).toEqual([2, "1.50"]);
    const [custom] = readDump(path.join(dump, "custom-user-data-database/custom-user-data.bson"), bson);
    expect(custom).toMatchObject({ userId: user.id, color: "pink" });
  }
  expect(JSON.parse(fs.readFileSync(path.join(dump, "app/people.metadata.json"), "utf8"))).toEqual({
    indexes: [
      { v: { $numberInt: "2" }, key: { _id: { $numberInt: "1" } }, name: "_id_" },
      { v: { $numberInt: "2" }, key: { name: { $numberInt: "1" } }, name: "name_1", unique: true, sparse: true },
    ],
    collectionName: "people",
    type: "collection",
    options: {},
  });

  const other = path.join(directory, "other/store.sqlite");
  const read = await userkeep("import", dump, "--store", `sqlite:${other}`, "--create");
  expect(read).toMatchObject({ status: 0, stdout: `imported 8 documents into ${other}; 0 already existed\n` });
  const twice = await userkeep("import", dump, "--store", `sqlite:${other}`);
  expect(twice).toMatchObject({ status: 0, stdout: `imported 0 documents into ${other}; 8 already existed\n` });
  // Users and sessions are still valid in the other store.
  await app.close();
  const moved = new Realm.App({
    id: "test-app",
    definition: openDefinition(),
    store: `sqlite:${other}`,
    baseFilePath: directory,
    logger: null,
  });
  expect(await moved.currentUser.refreshCustomData()).toMatchObject({ color: "pink" });
  await moved.close();
});

test("import reads a dump of mongodump, with a shortened file name and an unsupported index", async () => {
  const directory = temporaryDirectory();
  const dump = path.join(directory, "dump");
  const [, , { serialize }] = independent;
  const write = (name, contents) => {
    fs.mkdirSync(path.dirname(path.join(dump, name)), { recursive: true });
    fs.writeFileSync(path.join(dump, name), contents);
  };
  write("prelude.json", '{"ServerVersion":"7.0.0","ToolVersion":"100.9.0"}');
  write("shop/long%24abc.bson", Buffer.concat([serialize({ _id: 1 }), serialize({ _id: 2, at: new Date(0) })]));
  write(
    "shop/long%24abc.metadata.json",
    JSON.stringify({
      indexes: [
        { v: { $numberInt: "2" }, key: { _id: { $numberInt: "1" } }, name: "_id_" },
        {
          v: { $numberInt: "2" },
          key: { at: { $numberDouble: "1.0" } },
          name: "at_1",
          expireAfterSeconds: { $numberLong: "3600" },
        },
        { v: { $numberInt: "2" }, key: { where: "2dsphere" }, name: "where_2dsphere", "2dsphereIndexVersion": 3 },
      ],
      uuid: "5f3c",
      collectionName: "a very long name",
      type: "collection",
      options: {},
    }),
  );
  const store = path.join(directory, "store.sqlite");
  const refused = await userkeep("import", dump, "--store", `sqlite:${store}`, "--create");
  expect(refused.status).toBe(1);
  expect(refused.stderr).toMatch(/nothing was written:\n.*long%24abc.metadata.json: the index where_2dsphere: /);
  expect(fs.existsSync(store)).toBe(false);
  const read = await userkeep("import", dump, "--store", `sqlite:${store}`, "--create", "--ignore-indexes");
  expect(read.stdout).toMatch(/^warning: .*where_2dsphere.*\nimported 2 documents into .*; 0 already existed\n$/);
  const backend = await openBackend({ definition: openDefinition(), store: `sqlite:${store}` });
  const collection = backend.collection("shop", "a very long name");
  expect((await collection.indexes()).map(({ name }) => name)).toEqual(["_id_", "at_1"]);
});

test("doctor reports a corrupted document", async () => {
  const { file, app, backend } = await inUse();
  const whole = await userkeep("doctor", "--store", `sqlite:${file}`);
  expect(whole).toEqual({ status: 0, stdout: `${file}: nothing is wrong\n`, stderr: "" });
  expect(await backend.check()).toEqual([]);
  await app.close();
  await backend.close();
  const bytes = fs.readFileSync(file);
  // Overwrites two bytes of the document with the custom data.
  const at = bytes.lastIndexOf("pink");
  expect(at).toBeGreaterThan(0);
  bytes.write("kn", at);
  fs.writeFileSync(file, bytes);
  const wrong = await userkeep("doctor", "--store", `sqlite:${file}`);
  expect(wrong.status).toBe(1);
  expect(wrong.stdout).toMatch(/^the change \d+ disagrees with the stored document\n$/);
});

test("maintenance tasks report their progress, and the reason if they fail", async () => {
  const { backend, directory } = await inUse();
  await backend
    .collection("app", "people")
    .insertMany(Array.from({ length: 20_000 }, (_, n) => ({ n, text: "x".repeat(500) })));
  const seen = [];
  await backend.backup(path.join(directory, "copy.sqlite"), { onProgress: (progress) => seen.push(progress) });
  await backend.export(path.join(directory, "dump"), { onProgress: (progress) => seen.push(progress) });
  await backend.check({ onProgress: (progress) => seen.push(progress) });
  expect(seen.length).toBeGreaterThan(0);
  for (const { stage, done, total } of seen) {
    expect([typeof stage, done <= Math.max(total, done)]).toEqual(["string", true]);
  }
  await expect(backend.export(path.join(directory, "dump"))).rejects.toThrow("the directory is not empty");
  await expect(backend.import(path.join(directory, "none"))).rejects.toThrow("No such file or directory");
  await expect(backend.backup(7)).rejects.toThrow("Expected 'file' to be a string, got a number");
  await expect(backend.check({ onProgress: 7 })).rejects.toThrow("Expected 'onProgress' to be a function");
  const none = await userkeep("doctor", "--store", `sqlite:${directory}/none.sqlite`);
  expect(none).toEqual({ status: 1, stdout: "", stderr: `userkeep: there is no store at ${directory}/none.sqlite\n` });
  expect(await userkeep("backup")).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("the file of the copy is missing"),
  });
  expect(await userkeep("export", "a", "b")).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("unexpected argument 'b'"),
  });
});

test("a file that is empty is no store, and no command makes it one", async () => {
  const directory = temporaryDirectory();
  const file = path.join(directory, "empty.sqlite");
  fs.writeFileSync(file, "");
  const store = ["--store", `sqlite:${file}`];
  const stderr = `userkeep: the file ${file} is empty, and not a Userkeep store`;
  const rotate = ["keys", "rotate", "--app", "test-app", "--definition", QUICKSTART];
  for (const command of [["doctor"], ["export", path.join(directory, "dump")], rotate]) {
    expect(await userkeep(...command, ...store)).toEqual({ status: 1, stdout: "", stderr: `${stderr}\n` });
  }
  const migrated = await userkeep("migrate", "--from", `sqlite:${file}`, "--to", `sqlite:${directory}/new.sqlite`);
  expect(migrated).toEqual({ status: 1, stdout: "", stderr: `${stderr}\n` });
  expect(fs.statSync(file).size).toBe(0);
});

test("a store is not migrated to itself", async () => {
  const { file } = await inUse();
  const link = path.join(path.dirname(file), "link.sqlite");
  fs.symlinkSync(file, link);
  for (const to of [file, link]) {
    expect(await userkeep("migrate", "--from", `sqlite:${file}`, "--to", `sqlite:${to}`)).toEqual({
      status: 1,
      stdout: "",
      stderr: "userkeep: the source and the target are the same store\n",
    });
  }
});

const onLinux = process.platform === "linux" ? test : test.skip;

onLinux("a store that cannot be created is an error with one reason", async () => {
  const options = ["--app", "a", "--definition", QUICKSTART, "--port", "0", "--store", "sqlite:/proc/x/y"];
  const { status, stderr } = await userkeep("serve", ...options);
  expect(status).toBe(1);
  expect(stderr.match(/cannot open the store/g)).toHaveLength(1);
});
