"use strict";

// Large arguments against large documents, on the store of this project: a server has its own ways.

const { logInNew, openApp, rulesFile, writeDefinition } = require("../helpers.js");

const range = (count) => Array.from({ length: count }, (_, n) => n);
const everything = { read: true, write: true, insert: true, delete: true, search: true };
const owned = { owner: "%%user.id" };

/** A collection under the rule that each has its own documents: as its user has it, and as the operator has it. */
async function world(options = {}) {
  const definition = writeDefinition({
    [rulesFile("db", "things")]: {
      roles: [{ name: "own", apply_when: owned, document_filters: { read: owned, write: owned }, ...everything }],
    },
  });
  const app = await openApp({ definition, ...options });
  const user = await logInNew(app);
  const collection = user.mongoClient("mongodb-atlas").db("db").collection("things");
  return { app, user, collection, definition };
}

/** What an operation ends with, and how long it takes in milliseconds. */
async function ended(operation) {
  const begun = performance.now();
  const outcome = await operation.then(
    () => "ok",
    (error) => error.serverCode ?? error.code,
  );
  return { outcome, took: performance.now() - begun };
}

test("large arguments are matched in about linear time", async () => {
  const { collection, user } = await world({ maxTimeMS: 5000 });
  await collection.insertOne({ _id: 1, owner: user.id, long: range(20_000) });
  const many = range(20_000).map((n) => n + 1e6);
  for (const operation of [
    () => collection.find({ $and: many.map((n) => ({ long: { $ne: n } })) }),
    () => collection.find({ long: { $in: many } }),
    () => collection.find({ long: { $nin: many } }),
    () => collection.find({ _id: { $in: range(100_000).map((n) => `x${n}`) } }),
    () => collection.find({}, { projection: Object.fromEntries(range(20_000).map((n) => [`f${n}`, 1])) }),
    () => collection.updateOne({ _id: 1 }, { $pullAll: { long: many } }),
    () => collection.updateOne({ _id: 1 }, { $addToSet: { set: { $each: many } } }),
    () => collection.updateOne({ _id: 1 }, { $push: { pushed: { $each: many, $sort: -1 } } }),
    () => collection.updateOne({ _id: 1 }, { $set: Object.fromEntries(range(20_000).map((n) => [`f${n}`, n])) }),
    () => collection.updateOne({ _id: 1 }, { $unset: Object.fromEntries(range(20_000).map((n) => [`f${n}`, ""])) }),
    () => collection.updateOne({ _id: 1 }, { $set: { "long.$[n]": 0 } }, { arrayFilters: [{ n: { $in: many } }] }),
  ]) {
    expect(await ended(operation())).toMatchObject({ outcome: "ok" });
  }
});
