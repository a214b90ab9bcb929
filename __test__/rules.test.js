"use strict";

const {
  DATABASE,
  COLLECTION,
  QUICKSTART,
  customDataOf,
  everything,
  logInNew,
  openApp,
  openWithRules,
  readAndWriteAll,
  rulesFile,
  writeDefinition,
} = require("./helpers.js");

const own = { "%%user.id": "x" };
test("denies everything without a rule, and always denies the backend's own databases", async () => {
  const { collection } = await openWithRules({ "data_sources/mongodb-atlas/default_rule.json": { roles: [] } });
  await expect(collection("db", "c").find()).rejects.toMatchObject({
    message: "no rule exists for namespace 'db.c'",
    code: 4314,
  });
  const { collection: open } = await (async () => {
    const app = await openApp({
      definition: writeDefinition({ "data_sources/mongodb-atlas/default_rule.json": { roles: [readAndWriteAll] } }),
    });
    const user = await logInNew(app);
    return { collection: (database, name) => user.mongoClient("mongodb-atlas").db(database).collection(name) };
  })();
  await open("db", "c").insertOne({});
  for (const [database, name] of [
    ["userkeep_test-app", "users"],
    ["userkeep", "x"],
    ["USERKEEP_test-app", "sessions"],
    ["admin", "x"],
    ["config", "x"],
    ["local", "x"],
    ["db", "system.views"],
  ]) {
    for (const call of ["find", "count", "deleteMany"]) {
      await expect(open(database, name)[call]()).rejects.toThrow(`no rule exists for namespace '${database}.${name}'`);
    }
    await expect(open(database, name).insertOne({})).rejects.toThrow("no rule exists");
    await expect(open(database, name).aggregate([])).rejects.toThrow("no rule exists");
  }
});

test("a collection's roles replace the default roles", async () => {
  const { collection } = await openWithRules({
    "data_sources/mongodb-atlas/default_rule.json": { roles: [readAndWriteAll] },
    [rulesFile("db", "closed")]: { roles: [{ name: "none", apply_when: own, ...everything }] },
    [rulesFile("db", "none")]: { roles: [] },
  });
  await collection("db", "other").insertOne({ n: 1 });
  await collection("db", "none").insertOne({ n: 1 });
  await expect(collection("db", "closed").insertOne({ n: 1 })).rejects.toThrow("insert not permitted");
  expect(await collection("db", "closed").find()).toEqual([]);
});

test("applies the first matching role to each document", async () => {
  const { collection, backend, user } = await openWithRules({
    [rulesFile("db", "posts")]: {
      roles: [
        { name: "author", apply_when: { author: "%%user.id" }, ...everything },
        {
          name: "reader",
          apply_when: { "%or": [{ published: true }, { readers: "%%user.id" }] },
          read: true,
          write: false,
          insert: true,
          delete: true,
        },
      ],
    },
  });
  const posts = backend.collection("db", "posts");
  await posts.insertMany([
    { _id: 1, author: user.id, published: true },
    { _id: 2, author: "other", published: true },
    { _id: 3, author: "other", readers: ["x", user.id] },
    { _id: 4, author: "other", secret: "s" },
  ]);
  const mine = collection("db", "posts");
  expect((await mine.find()).map(({ _id }) => _id)).toEqual([1, 2, 3]);
  expect(await mine.count()).toBe(3);
  expect(await mine.find({}, { limit: 1, sort: { _id: -1 } })).toEqual([
    { _id: 3, author: "other", readers: ["x", user.id] },
  ]);
  expect(await mine.aggregate([{ $group: { _id: null, n: { $sum: 1 } } }])).toEqual([{ _id: null, n: 3 }]);
  expect(await mine.updateMany({ author: user.id }, { $set: { x: 1 } })).toEqual({ matchedCount: 1, modifiedCount: 1 });
  await expect(mine.updateMany({}, { $set: { x: 2 } })).rejects.toMatchObject({
    message: "update not permitted",
    code: 4314,
    errorCode: "NoMatchingRuleFound",
  });
  await expect(mine.deleteOne({ _id: 2 })).rejects.toThrow("delete not permitted");
  await expect(mine.findOneAndDelete({ _id: 3 })).rejects.toThrow("delete not permitted");
  expect(await posts.find({ x: 2 })).toEqual([]);
  await expect(mine.insertOne({ author: "other", published: true })).rejects.toThrow("insert not permitted");
  expect(await mine.deleteOne({ _id: 1 })).toEqual({ deletedCount: 1 });
});

test("writes reveal nothing about documents that the user may not read", async () => {
  const { collection, backend } = await openWithRules({
    [rulesFile("db", "c")]: { roles: [{ name: "own", apply_when: { owner: "%%user.id" }, ...everything }] },
  });
  const all = backend.collection("db", "c");
  await all.insertOne({ _id: 1, owner: "other", salary: 5000 });
  const mine = collection("db", "c");
  for (const filter of [{ salary: { $gt: 1 } }, { salary: 5000 }, { _id: 1, salary: 5000 }, {}]) {
    expect(await mine.updateOne(filter, { $set: { a: 1 } })).toEqual({ matchedCount: 0, modifiedCount: 0 });
    expect(await mine.deleteMany(filter)).toEqual({ deletedCount: 0 });
    expect(await mine.findOneAndUpdate(filter, { $set: { a: 1 } })).toBeNull();
  }
  // An upsert has the same result whether or not a hidden document matches.
  for (const salary of [5000, 6000]) {
    await expect(mine.updateOne({ salary }, { $set: { a: 1 } }, { upsert: true })).rejects.toThrow(
      "insert not permitted",
    );
  }
  expect(await all.find()).toEqual([{ _id: 1, owner: "other", salary: 5000 }]);
});

test("rules read the current custom data, not the user's copy", async () => {
  const { collection, backend, user } = await openWithRules({
    [rulesFile("db", "admin")]: {
      roles: [{ name: "admin", apply_when: { "%%user.custom_data.role": "admin" }, ...everything }],
    },
    [rulesFile("db", "teams")]: {
      roles: [{ name: "manager", apply_when: { team: "%%user.custom_data.manages" }, read: true, write: false }],
    },
  });
  const people = backend.collection(DATABASE, COLLECTION);
  await expect(collection("db", "admin").insertOne({ n: 1 })).rejects.toThrow("insert not permitted");
  await people.insertOne({ userId: user.id, role: "admin", manages: ["red", "blue"] });
  await collection("db", "admin").insertOne({ n: 1 });
  expect(user.customData).toEqual({});
  await people.updateOne({ userId: user.id }, { $set: { role: "user" } });
  expect(await collection("db", "admin").find()).toEqual([]);
  await backend.collection("db", "teams").insertMany([{ team: "red" }, { team: "green" }]);
  expect(await collection("db", "teams").find({}, { projection: { _id: 0 } })).toEqual([{ team: "red" }]);
});

test("checks document filters before and after a write", async () => {
  const own = { owner: "%%user.id" };
  const { collection, backend, user } = await openWithRules({
    [rulesFile("db", "c")]: {
      roles: [{ name: "r", apply_when: {}, document_filters: { read: true, write: own }, ...everything }],
    },
  });
  const mine = collection("db", "c");
  await mine.insertOne({ _id: 1, owner: user.id });
  await backend.collection("db", "c").insertOne({ _id: 2, owner: "other" });
  expect(await mine.count()).toBe(2);
  await expect(mine.updateOne({ _id: 1 }, { $set: { owner: "other" } })).rejects.toThrow("update not permitted");
  await expect(mine.updateOne({ _id: 2 }, { $set: { owner: user.id } })).rejects.toThrow("update not permitted");
  await expect(mine.insertOne({ owner: "other" })).rejects.toThrow("insert not permitted");
  await expect(mine.deleteMany()).rejects.toThrow("delete not permitted");
  expect(await mine.count()).toBe(2);
});

test("users of the quickstart cannot access each other's custom data", async () => {
  const app = await openApp({ definition: QUICKSTART });
  const one = await logInNew(app);
  const two = await logInNew(app);
  await customDataOf(one).insertOne({ userId: one.id, secret: 1 });
  await customDataOf(two).insertOne({ userId: two.id, secret: 2 });
  expect(await customDataOf(one).find({}, { projection: { _id: 0 } })).toEqual([{ userId: one.id, secret: 1 }]);
  expect(await customDataOf(two).updateMany({}, { $set: { seen: true } })).toEqual({
    matchedCount: 1,
    modifiedCount: 1,
  });
  expect(await customDataOf(two).deleteMany()).toEqual({ deletedCount: 1 });
  expect(await one.refreshCustomData()).toMatchObject({ secret: 1 });
});
