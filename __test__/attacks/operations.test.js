"use strict";

// Operations that are expensive because of their size: each ends within its budget, and does not
// block others.

const { logInNew, openBackend, temporaryDirectory } = require("../helpers.js");
const { ended, openOwned, range } = require("./support.js");

describe("an operation that exceeds its time limit", () => {
  test.each([
    ["three $unwind", (c) => c.aggregate(["a", "b", "c"].map((name) => ({ $unwind: `$${name}` })))],
    [
      "$reduce that builds a string",
      (c) => {
        const grown = { $concat: ["$$value", "x".repeat(100)] };
        const $reduce = { input: { $range: [0, 100_000] }, initialValue: "", in: grown };
        return c.updateMany({}, [{ $set: { text: { $strLenBytes: { $reduce } } } }]);
      },
    ],
    [
      "nested $map",
      (c) => {
        const input = { $range: [0, 100_000] };
        const inner = { $size: { $map: { input, in: { $add: ["$$this", 1] } } } };
        return c.aggregate([{ $project: { x: { $map: { input, in: inner } } } }]);
      },
    ],
  ])("rejects with code 50 or a memory limit, and writes nothing: %s", async (_, operation) => {
    const { collection, user } = await openOwned({ maxTimeMS: 200 });
    const list = range(3000);
    await collection.insertOne({ _id: 1, owner: user.id, a: list, b: list, c: list });
    const { outcome, took } = await ended(operation(collection));
    expect([50, 292, 4304]).toContain(outcome);
    expect(took).toBeLessThan(5000);
    expect(await collection.findOne({}, { projection: { text: 1, _id: 0 } })).toEqual({});
  });
});

describe("a large write", () => {
  test("is rejected before it changes anything, with the limit in the message", async () => {
    const { collection, user } = await openOwned({ maxWriteDocuments: 50 });
    const mine = (count, from) => range(count).map((n) => ({ _id: from + n, owner: user.id, n }));
    await expect(collection.insertMany(mine(51, 0))).rejects.toMatchObject({
      code: 4304,
      message: expect.stringContaining("more than 50 documents"),
    });
    expect(await collection.count()).toBe(0);
    await collection.insertMany(mine(50, 0));
    await collection.insertMany(mine(10, 100));
    for (const write of [
      () => collection.updateMany({}, { $set: { n: -1 } }),
      () => collection.updateMany({}, { n: -1, owner: user.id }),
      () => collection.deleteMany({}),
    ]) {
      await expect(write()).rejects.toMatchObject({ code: 4304 });
    }
    expect(await collection.count({ n: -1 })).toBe(0);
    expect(await collection.updateMany({ _id: { $lt: 50 } }, { $set: { n: -1 } })).toMatchObject({ modifiedCount: 50 });
  });

  test("is complete although other writes run before it", async () => {
    const { collection, user } = await openOwned();
    await collection.insertMany(range(2000).map((n) => ({ _id: n, owner: user.id, n: 0 })));
    const increments = range(40).map((n) => collection.updateOne({ _id: n }, { $inc: { n: 1 } }));
    const [outcome] = await Promise.all([collection.updateMany({}, { $inc: { n: 1 } }), ...increments]);
    expect(outcome).toEqual({ matchedCount: 2000, modifiedCount: 2000 });
    expect(await collection.count({ n: 2 })).toBe(40);
    expect(await collection.count({ n: 1 })).toBe(1960);
  });
});

test("limits the size of a result in bytes", async () => {
  const { collection, user } = await openOwned({ maxAnswerBytes: 100_000 });
  await collection.insertMany(range(20).map((n) => ({ _id: n, owner: user.id, text: "x".repeat(10_000) })));
  await expect(collection.find()).rejects.toMatchObject({
    code: 4304,
    message: expect.stringContaining("100000 bytes"),
  });
  await expect(collection.aggregate([{ $match: {} }])).rejects.toMatchObject({ code: 4304 });
  expect(await collection.find({}, { limit: 5 })).toHaveLength(5);
});

describe("an upsert", () => {
  test("inserts one document, even with concurrent writes to the collection that it scans", async () => {
    const { collection, user } = await openOwned();
    for (let part = 0; part < 4; part++) {
      await collection.insertMany(range(2500).map((n) => ({ owner: user.id, n: part * 2500 + n })));
    }
    let writing = true;
    const traffic = (async () => {
      while (writing) {
        await collection.insertOne({ owner: user.id });
      }
    })();
    const upsert = () =>
      collection.updateOne({ name: "once" }, { $inc: { n: 1 }, $set: { owner: user.id } }, { upsert: true });
    try {
      // On MongoDB, two concurrent upserts may insert two documents, so the first one runs alone.
      await upsert();
      await Promise.all([upsert(), upsert(), upsert()]);
    } finally {
      writing = false;
      await traffic;
    }
    expect(await collection.find({ name: "once" }, { projection: { _id: 0, n: 1 } })).toEqual([{ n: 4 }]);
  });

  test("reveals nothing about hidden documents", async () => {
    const { app, collection, user } = await openOwned();
    const other = await logInNew(app);
    const theirs = other.mongoClient("mongodb-atlas").db("db").collection("things");
    await theirs.insertOne({ _id: "theirs", owner: other.id, salary: 5000 });
    for (const salary of [5000, 6000]) {
      const upsert = { upsert: true };
      await expect(collection.updateOne({ salary }, { $set: { a: 1 } }, upsert)).rejects.toMatchObject({
        message: "insert not permitted",
      });
      const made = await collection.updateOne({ salary, owner: user.id }, { $set: { a: 1 } }, upsert);
      expect(made).toMatchObject({ matchedCount: 0, upsertedId: expect.anything() });
    }
    await expect(
      collection.updateOne({ _id: "theirs" }, { $set: { owner: user.id } }, { upsert: true }),
    ).rejects.toMatchObject({ serverCode: 11000 });
    expect(await theirs.find()).toEqual([{ _id: "theirs", owner: other.id, salary: 5000 }]);
  });
});

test("a backend handle has no such limits", async () => {
  const { definition } = await openOwned();
  const limits = { maxTimeMS: 1, maxWriteDocuments: 1, maxAnswerBytes: 100 };
  const backend = await openBackend({ definition, baseFilePath: temporaryDirectory(), ...limits });
  const all = backend.collection("db", "others");
  await all.deleteMany();
  await all.insertMany(range(3000).map((n) => ({ n })));
  expect(await all.updateMany({}, { $set: { a: 1 } })).toMatchObject({ modifiedCount: 3000 });
  expect(await all.find()).toHaveLength(3000);
});
