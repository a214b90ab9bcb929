"use strict";

// Large arguments against large documents, on the embedded store only: MongoDB has its own
// algorithms.

const { ended, openOwned, range } = require("./support.js");

test("evaluates large arguments in about linear time", async () => {
  const { collection, user } = await openOwned({ maxTimeMS: 5000 });
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
