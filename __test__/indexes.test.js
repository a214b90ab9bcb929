"use strict";

const path = require("node:path");
const {
  COLLECTION,
  DATABASE,
  MODE,
  OWN_STORE,
  QUICKSTART,
  STORE,
  logInNew,
  openApp,
  openBackend,
  openDefinition,
  temporaryDirectory,
  writeDefinition,
} = require("./helpers.js");

/** Opens a backend, and returns it with its collection `things`. */
async function things(options = {}) {
  const backend = await openBackend({ definition: openDefinition(), store: STORE, ...options });
  return { backend, collection: backend.collection("app", "things") };
}

test("a backend handle creates, lists and drops indexes", async () => {
  const { backend, collection } = await things();
  await collection.insertMany([
    { _id: 1, kind: "a", n: 1 },
    { _id: 2, kind: "b", n: 2 },
  ]);
  expect(
    await collection.createIndexes([
      { key: { kind: 1, n: -1 } },
      { key: { n: 1 }, name: "by n", unique: true, partialFilterExpression: { n: { $gt: 0 } } },
    ]),
  ).toEqual(["kind_1_n_-1", "by n"]);
  const byName = (one, other) => one.name.localeCompare(other.name);
  expect((await collection.indexes()).sort(byName)).toEqual([
    { v: 2, key: { _id: 1 }, name: "_id_" },
    { v: 2, key: { n: 1 }, name: "by n", unique: true, partialFilterExpression: { n: { $gt: 0 } } },
    { v: 2, key: { kind: 1, n: -1 }, name: "kind_1_n_-1" },
  ]);
  await expect(collection.insertOne({ n: 2 })).rejects.toThrow(/E11000.*index: by n dup key: \{ n: 2 \}/);
  await collection.insertMany([{ n: -1 }, { n: -1 }]);

  await collection.dropIndex("by n");
  await collection.insertOne({ n: 2 });
  await expect(collection.dropIndex("by n")).rejects.toThrow("index not found with name [by n]");
  expect((await collection.indexes()).map(({ name }) => name)).toEqual(["_id_", "kind_1_n_-1"]);
  await backend.close();
});

// On MongoDB, `explain` returns the server's own output.
const ofEmbeddedStores = MODE === "mongodb" ? () => {} : test;

ofEmbeddedStores("explain returns the plan of a query", async () => {
  const { backend, collection } = await things();
  await collection.insertMany(Array.from({ length: 200 }, (_, n) => ({ _id: n, kind: n % 4, n })));
  expect(await collection.explain({ n: 7 })).toEqual({
    stage: "COLLSCAN",
    index: null,
    sortedByIndex: false,
    ranges: 0,
    examined: 200,
    returned: 1,
  });
  await collection.createIndexes([{ key: { n: 1 } }, { key: { kind: 1, n: -1 } }]);
  expect(await collection.explain({ n: { $gte: 10, $lt: 20 } })).toMatchObject({
    stage: "IXSCAN",
    index: "n_1",
    examined: 10,
    returned: 10,
  });
  expect(await collection.explain({ kind: 3 }, { sort: { n: -1 }, limit: 2 })).toMatchObject({
    index: "kind_1_n_-1",
    sortedByIndex: true,
    examined: 2,
  });
  expect(await collection.explain({ _id: 5 })).toMatchObject({ stage: "IDHACK", index: "_id_", examined: 1 });
  expect(await collection.explain({ n: { $in: [1, 5, 500] } })).toMatchObject({ ranges: 3, examined: 2 });
  expect(await collection.explain({ $or: [{ _id: 5 }, { n: { $gt: 197 } }] })).toMatchObject({
    index: "_id_, n_1",
    examined: 3,
    returned: 3,
  });
  expect(await collection.explain({ $or: [{ _id: 5 }, { other: 1 }] })).toMatchObject({ stage: "COLLSCAN" });
  await backend.close();
});

test("rejects invalid indexes and leaves the existing ones unchanged", async () => {
  const { backend, collection } = await things();
  await collection.insertMany([{ n: 1 }, { n: 1 }]);
  await expect(collection.createIndexes([{ key: { m: 1 } }, { key: { n: 1 }, unique: true }])).rejects.toThrow(
    /E11000/,
  );
  expect(await collection.indexes()).toHaveLength(1);
  await expect(collection.createIndexes([{ key: { n: 0 } }])).rejects.toMatchObject({
    message: expect.stringContaining("Values in the index key pattern must be 1 or -1, at 'n'"),
  });
  await expect(collection.createIndexes([{ key: { n: 1 }, uniqe: true }])).rejects.toThrow(
    "The field 'uniqe' is not valid",
  );
  await expect(collection.createIndexes([{ key: { n: "text" } }])).rejects.toThrow(/kind text is not supported/);
  await collection.createIndexes([{ key: { n: 1 } }]);
  await expect(collection.createIndexes([{ key: { n: -1 }, name: "n_1" }])).rejects.toThrow(/same name/);
  await expect(collection.createIndexes([])).rejects.toThrow(/at least one/);
  await backend.close();
});

test("users have no index methods", async () => {
  const user = await logInNew(await openApp({ definition: openDefinition() }));
  const collection = user.mongoClient("mongodb-atlas").db("app").collection("things");
  for (const name of ["createIndexes", "dropIndex", "explain", "indexes"]) {
    expect(collection[name]).toBeUndefined();
  }
});

test("applies indexes.json, to existing documents too", async () => {
  const store = OWN_STORE ?? `sqlite:${path.join(temporaryDirectory(), "app.sqlite")}`;
  const file = "data_sources/mongodb-atlas/app/things/indexes.json";
  const before = await things({ store });
  await before.collection.insertMany([{ n: 1 }, { n: 2 }]);
  await before.backend.close();

  const definition = writeDefinition({
    [file]: [
      { key: { n: 1 }, unique: true },
      { key: { at: 1 }, name: "recent", sparse: true },
    ],
  });
  const { backend, collection } = await things({ definition, store });
  expect((await collection.indexes()).map(({ name }) => name)).toEqual(["_id_", "n_1", "recent"]);
  await expect(collection.insertOne({ n: 2 })).rejects.toThrow(/E11000/);
  await backend.close();

  const wrong = writeDefinition({ [file]: [{ key: { n: 1 } }, { keys: { a: 1 } }] });
  await expect(openBackend({ definition: wrong, store })).rejects.toThrow(
    /app\/things\/indexes\.json.*\[1\].*'key' field is a required property/s,
  );
});

test("creates no index on the user id field if the operator has created one", async () => {
  const store = OWN_STORE ?? `sqlite:${path.join(temporaryDirectory(), "app.sqlite")}`;
  const options = { definition: QUICKSTART, store };
  const first = await openBackend(options);
  const [, made] = await first.collection(DATABASE, COLLECTION).indexes();
  expect(made).toEqual({ v: 2, key: { userId: 1 }, name: "userId_1" });
  await first.collection(DATABASE, COLLECTION).dropIndex(made.name);
  await first.collection(DATABASE, COLLECTION).createIndexes([{ key: made.key, unique: true, name: "mine" }]);
  await first.close();

  const second = await openBackend(options);
  const indexes = await second.collection(DATABASE, COLLECTION).indexes();
  expect(indexes.map((index) => index.name)).toEqual(["_id_", "mine"]);
  await second.close();
});
