"use strict";

const { BSON } = require("..");
const { STORE, logInNew, openApp, openBackend, openDefinition } = require("./helpers.js");

let plants;

beforeEach(async () => {
  const user = await logInNew(await openApp({ definition: openDefinition(), maxDocuments: 20 }));
  plants = user.mongoClient("mongodb-atlas").db("example").collection("plants");
  await plants.insertMany([
    { _id: 1, name: "venus flytrap", type: "perennial", sunlight: "full", tags: ["a", "b"], _partition: "Store 42" },
    { _id: 2, name: "sweet basil", type: "annual", sunlight: "partial", tags: [], _partition: "Store 42" },
    { _id: 3, name: "thai basil", type: "perennial", sunlight: "partial", _partition: "Store 42" },
    { _id: 4, name: "helianthus", type: "annual", sunlight: "full", _partition: "Store 42" },
    { _id: 5, name: "petunia", type: "annual", sunlight: "full", size: { height: 3 }, _partition: "Store 47" },
  ]);
});

const ids = (documents) => documents.map(({ _id }) => _id);

test("find filters, projects, sorts and limits documents", async () => {
  expect(ids(await plants.find())).toEqual([1, 2, 3, 4, 5]);
  expect(ids(await plants.find({ type: "perennial" }))).toEqual([1, 3]);
  expect(await plants.find({ name: "unknown" })).toEqual([]);
  expect(
    await plants.find({ _id: { $gte: 4 } }, { projection: { name: 1, _id: 0 }, sort: { name: -1 }, limit: 1 }),
  ).toEqual([{ name: "petunia" }]);
  expect(await plants.find({ _id: 5 }, { projection: { "size.height": 1 } })).toEqual([
    { _id: 5, size: { height: 3 } },
  ]);
  expect(ids(await plants.find({ $or: [{ tags: "a" }, { "size.height": { $in: [3, 4] } }] }))).toEqual([1, 5]);
  expect(ids(await plants.find({ tags: { $exists: true }, type: { $ne: "annual" } }))).toEqual([1]);
  expect(ids(await plants.find({}, { sort: { type: 1, name: 1 }, limit: 2 }))).toEqual([4, 5]);
});

test("findOne returns the first matching document or null", async () => {
  expect(await plants.findOne({ name: "venus flytrap" })).toMatchObject({ _id: 1, tags: ["a", "b"] });
  expect(await plants.findOne({ name: "unknown" })).toBeNull();
  expect(await plants.findOne({}, { sort: { name: 1 }, projection: { name: 1 } })).toEqual({
    _id: 4,
    name: "helianthus",
  });
  expect(await plants.findOne()).toMatchObject({ _id: 1 });
});

test("findOneAndUpdate returns the document before or after the update", async () => {
  const update = { $set: { sunlight: "none" }, $inc: { n: 1 } };
  expect(await plants.findOneAndUpdate({ _id: 1 }, update)).toMatchObject({ sunlight: "full" });
  const options = { returnNewDocument: true, projection: { sunlight: 1, n: 1, _id: 0 } };
  expect(await plants.findOneAndUpdate({ _id: 1 }, update, options)).toEqual({ sunlight: "none", n: 2 });
  expect(await plants.findOneAndUpdate({ _id: 9 }, update)).toBeNull();
  expect(await plants.findOneAndUpdate({ _id: 9 }, update, { upsert: true })).toBeNull();
  expect(await plants.findOneAndUpdate({ _id: 10 }, update, { upsert: true, returnNewDocument: true })).toEqual({
    _id: 10,
    sunlight: "none",
    n: 1,
  });
  expect(await plants.findOneAndUpdate({ type: "annual" }, update, { sort: { name: 1 } })).toMatchObject({ _id: 4 });
  expect(await plants.findOneAndUpdate({ _id: 2 }, { replaced: true }, { returnNewDocument: true })).toEqual({
    _id: 2,
    replaced: true,
  });
});

test("findOneAndReplace returns the document, and rejects update operators", async () => {
  expect(await plants.findOneAndReplace({ _id: 1 }, { name: "new" })).toMatchObject({ name: "venus flytrap" });
  expect(await plants.findOne({ _id: 1 })).toEqual({ _id: 1, name: "new" });
  expect(await plants.findOneAndReplace({ name: "made" }, { a: 1 }, { upsert: true, returnNewDocument: true })).toEqual(
    { _id: expect.any(BSON.ObjectId), a: 1 },
  );
  await expect(plants.findOneAndReplace({ _id: 1 }, { $set: { a: 1 } })).rejects.toMatchObject({
    message: expect.stringContaining("the replace operation document must not contain atomic operators"),
    code: 4311,
  });
});

test("findOneAndDelete returns the document; deleteOne and deleteMany return counts", async () => {
  expect(await plants.findOneAndDelete({ type: "annual" }, { sort: { name: -1 }, projection: { name: 1 } })).toEqual({
    _id: 2,
    name: "sweet basil",
  });
  expect(await plants.findOneAndDelete({ _id: 2 })).toBeNull();
  expect(await plants.deleteOne({ type: "annual" })).toEqual({ deletedCount: 1 });
  expect(await plants.deleteMany({ _id: 99 })).toEqual({ deletedCount: 0 });
  expect(await plants.deleteOne()).toEqual({ deletedCount: 1 });
  expect(ids(await plants.find())).toEqual([3, 5]);
  expect(await plants.deleteMany()).toEqual({ deletedCount: 2 });
});

test("aggregate runs pipelines, and rejects unknown stages", async () => {
  expect(await plants.aggregate([{ $group: { _id: "$type", total: { $sum: 1 } } }, { $sort: { _id: 1 } }])).toEqual([
    { _id: "annual", total: 3 },
    { _id: "perennial", total: 2 },
  ]);
  expect(
    await plants.aggregate([{ $match: { tags: "a" } }, { $unwind: "$tags" }, { $project: { _id: 0, tags: 1 } }]),
  ).toEqual([{ tags: "a" }, { tags: "b" }]);
  expect(
    await plants.aggregate([
      { $addFields: { first: { $arrayElemAt: [{ $split: ["$name", " "] }, 0] } } },
      { $skip: 2 },
      { $limit: 1 },
      { $project: { first: 1 } },
    ]),
  ).toEqual([{ _id: 3, first: "thai" }]);
  expect(await plants.aggregate([{ $count: "n" }])).toEqual([{ n: 5 }]);
  await expect(plants.aggregate([{ $who: 1 }])).rejects.toThrow("Unrecognized pipeline stage name: '$who'.");
  await expect(plants.aggregate([{ $lookup: { from: "x" } }])).rejects.toThrow(
    "the pipeline stage $lookup is not supported by Userkeep",
  );
  await expect(plants.aggregate()).rejects.toThrow("Expected 'pipeline' to be an array, got undefined");
});

test("count counts the matching documents, up to a limit", async () => {
  expect(await plants.count()).toBe(5);
  expect(await plants.count({ type: "annual" })).toBe(3);
  expect(await plants.count({ type: "annual" }, { limit: 2 })).toBe(2);
  expect(await plants.count({ type: "x" })).toBe(0);
});

test("insertOne and insertMany return ids, and reject duplicates", async () => {
  const { insertedId } = await plants.insertOne({ name: "fern" });
  expect(insertedId).toBeInstanceOf(BSON.ObjectId);
  expect(await plants.insertOne({ _id: "own", name: "moss" })).toEqual({ insertedId: "own" });
  expect(await plants.insertMany([{ _id: 11 }, {}])).toEqual({ insertedIds: [11, expect.any(BSON.ObjectId)] });
  const duplicate = { message: expect.stringContaining("Duplicate key error"), code: 4311, serverCode: 11000 };
  await expect(plants.insertOne({ _id: 1 })).rejects.toMatchObject(duplicate);
  await expect(plants.insertMany([{ _id: 21 }, { _id: new BSON.Double(1) }, { _id: 22 }])).rejects.toMatchObject(
    duplicate,
  );
  expect(ids(await plants.find({ _id: { $gt: 20 } }))).toEqual([21]);
  await expect(plants.insertMany([])).rejects.toThrow("must provide at least one element");
  await expect(plants.insertOne()).rejects.toThrow("Expected 'document' to be an object, got undefined");
  await expect(plants.insertOne({ _id: [1] })).rejects.toMatchObject({ code: 4311, serverCode: 53 });
});

test("updateOne and updateMany return counts, and the id of an upsert", async () => {
  expect(await plants.updateOne({ name: "petunia" }, { $set: { sunlight: "partial" } })).toEqual({
    matchedCount: 1,
    modifiedCount: 1,
  });
  expect(await plants.updateMany({ _partition: "Store 42" }, { $set: { _partition: "Store 51" } })).toEqual({
    matchedCount: 4,
    modifiedCount: 4,
  });
  expect(await plants.updateMany({ _id: 77 }, { $set: { a: 1 } })).toEqual({ matchedCount: 0, modifiedCount: 0 });
  expect(await plants.updateMany({ type: "annual" }, { hidden: true })).toEqual({ matchedCount: 3, modifiedCount: 3 });
  expect(await plants.findOne({ _id: 2 })).toEqual({ _id: 2, hidden: true });
  const upserted = await plants.updateOne(
    { name: "sweet basil", color: "green" },
    { $set: { tags: ["x"] }, $setOnInsert: { n: 1 } },
    { upsert: true },
  );
  expect(upserted).toEqual({ matchedCount: 0, modifiedCount: 0, upsertedId: expect.any(BSON.ObjectId) });
  expect(await plants.findOne({ _id: upserted.upsertedId })).toEqual({
    _id: upserted.upsertedId,
    name: "sweet basil",
    color: "green",
    n: 1,
    tags: ["x"],
  });
  await plants.updateOne(
    { _id: 1 },
    {
      $push: { tags: { $each: ["c"], $position: 0 } },
      $unset: { type: "" },
      $rename: { name: "called" },
      $min: { low: 1 },
      $mul: { none: 2 },
    },
  );
  expect(await plants.findOne({ _id: 1 })).toEqual({
    _id: 1,
    sunlight: "full",
    tags: ["c", "a", "b"],
    _partition: "Store 51",
    called: "venus flytrap",
    low: 1,
    none: 0,
  });
});

test("an empty update changes nothing", async () => {
  expect(await plants.updateOne({ _id: 1 }, {})).toEqual({ matchedCount: 1, modifiedCount: 0 });
  expect(await plants.updateMany({ type: "annual" }, {})).toEqual({ matchedCount: 3, modifiedCount: 0 });
  expect(await plants.updateOne({ _id: 77 }, {})).toEqual({ matchedCount: 0, modifiedCount: 0 });
  expect(await plants.findOneAndUpdate({ _id: 1 }, {}, { returnNewDocument: true })).toMatchObject({
    tags: ["a", "b"],
  });
  expect(await plants.findOne({ _id: 1 })).toMatchObject({ name: "venus flytrap" });
});

test("accepts Extended JSON literals, and rejects malformed ones with their path", async () => {
  const id = new BSON.ObjectId();
  const { insertedId } = await plants.insertOne({
    _id: { $oid: id.toHexString() },
    at: { $date: "2020-01-01T00:00:00Z" },
  });
  expect(insertedId).toEqual(id);
  const document = { _id: id, at: new Date("2020-01-01T00:00:00Z") };
  expect(await plants.findOne({ _id: { $oid: id.toHexString() } })).toEqual(document);
  expect(await plants.find({ at: { $gte: { $date: 1577836800000 } } })).toEqual([document]);
  await plants.updateOne({ _id: id }, { $set: { n: { $numberLong: "5" } } });
  expect(await plants.count({ n: 5 })).toBe(1);
  for (const [call, path] of [
    [() => plants.findOne({ _id: { $oid: "no id" } }), "query._id"],
    [() => plants.insertOne({ list: [1, { $date: "no date" }] }), "document.list.1"],
  ]) {
    await expect(call()).rejects.toThrow(`the value of '${path}' is not valid Extended JSON`);
  }
});

test("rejects invalid operations with MongoDB's messages and codes", async () => {
  const rejects = async (promise, message, serverCode) =>
    expect(promise).rejects.toMatchObject({ message: expect.stringContaining(message), code: 4311, serverCode });
  await rejects(plants.find({ $who: 1 }), "unknown top level operator: $who.", 2);
  await rejects(plants.find({ name: { $who: 1 } }), "unknown operator: $who", 2);
  await rejects(plants.find({ name: { $near: [1, 2] } }), "query operator $near is not supported by Userkeep", 115);
  await rejects(plants.updateOne({}, { $who: { a: 1 } }), "Unknown modifier: $who", 9);
  await rejects(plants.updateOne({ _id: 1 }, { $set: { _id: 2 } }), "immutable field '_id'", 66);
  await rejects(plants.updateOne({ _id: 1 }, { $inc: { name: 1 } }), "non-numeric type", 14);
  await rejects(
    plants.updateOne({}, { $set: { a: 1 } }, { arrayFilters: [{ x: 1 }] }),
    "The array filter for identifier 'x' was not used in the update",
    9,
  );
  await rejects(plants.updateOne({ _id: 1 }, { $set: { "name.$[]": 1 } }), "non-array element name", 2);
  await rejects(plants.find({}, { sort: { a: 3 } }), "$sort key ordering must be 1", 15975);
  await rejects(
    plants.find({}, { projection: { a: 1, b: 0 } }),
    "Cannot do exclusion on field b in inclusion projection",
    31254,
  );
  let deep = 1;
  for (let level = 0; level < 170; level++) {
    deep = { deep };
  }
  await expect(plants.insertOne(deep)).resolves.toBeDefined();
  for (let level = 0; level < 40; level++) {
    deep = { deep };
  }
  await expect(plants.insertOne(deep)).rejects.toThrow("nested more than 200 levels deep");
  await expect(plants.insertOne({ text: "x".repeat(16 * 1024 * 1024) })).rejects.toMatchObject({ serverCode: 10334 });
});

test("filters by array contents and by type", async () => {
  const found = async (filter) => ids(await plants.find(filter));
  await plants.insertMany([
    {
      _id: 11,
      items: [
        { kind: "a", n: 1 },
        { kind: "b", n: 5 },
      ],
      scores: [70, 82, 95],
    },
    { _id: 12, items: [{ kind: "a", n: 5 }], scores: [60], when: new Date(0) },
  ]);
  expect(await found({ tags: { $all: ["b", "a"] } })).toEqual([1]);
  expect(await found({ items: { $elemMatch: { kind: "a", n: { $gt: 4 } } } })).toEqual([12]);
  expect(await found({ scores: { $elemMatch: { $gte: 80, $lt: 85 } } })).toEqual([11]);
  expect(await found({ scores: { $size: 3 } })).toEqual([11]);
  expect(await found({ when: { $type: "date" } })).toEqual([12]);
  expect(await found({ _id: { $mod: [10, 2] } })).toEqual([2, 12]);
  expect(await found({ items: { $exists: true, $not: { $elemMatch: { n: 1 } } } })).toEqual([12]);
});

test("updates array elements, and updates with a pipeline", async () => {
  const { insertedId: _id } = await plants.insertOne({ items: [{ n: 1, ok: true }, { n: 5 }, { n: 9 }], flags: 5 });
  const change = (update, options, filter = {}) => plants.updateOne({ _id, ...filter }, update, options);
  const items = async () => (await plants.findOne({ _id })).items;
  await change({ $set: { "items.$.seen": true } }, {}, { "items.n": 5 });
  await change({ $inc: { "items.$[].n": 1 } });
  await change({ $unset: { "items.$[big].n": "" } }, { arrayFilters: [{ "big.n": { $gte: 10 } }] });
  expect(await items()).toEqual([{ n: 2, ok: true }, { n: 6, seen: true }, {}]);
  await change({ $pop: { items: 1 }, $bit: { flags: { and: 4, or: 8 } } });
  await change({ $pull: { items: { ok: true } } });
  expect(await plants.findOne({ _id })).toEqual({ _id, items: [{ n: 6, seen: true }], flags: 12 });
  await change({ $pullAll: { items: [{ n: 6, seen: true }] } });
  await change([{ $set: { total: { $add: ["$flags", 1] }, text: { $concat: ["a", "b"] } } }, { $unset: "items" }]);
  expect(await plants.findOne({ _id })).toEqual({ _id, flags: 12, total: 13, text: "ab" });
  await expect(change([{ $match: {} }])).rejects.toMatchObject({ serverCode: 72 });
});

test("projects parts of arrays and computed fields", async () => {
  await plants.insertOne({ _id: 20, a: [1, 2, 3, 4], b: [{ x: 1 }, { x: 2 }], c: 5 });
  const project = (projection, filter = { _id: 20 }) => plants.findOne(filter, { projection });
  expect(await project({ a: { $slice: 2 }, b: 0 })).toEqual({ _id: 20, a: [1, 2], c: 5 });
  expect(await project({ a: { $slice: [-3, 2] }, _id: 0, c: 1 })).toEqual({ a: [2, 3], c: 5 });
  expect(await project({ b: { $elemMatch: { x: 2 } } })).toEqual({ _id: 20, b: [{ x: 2 }] });
  expect(await project({ "b.$": 1, _id: 0 }, { _id: 20, "b.x": 2 })).toEqual({ b: [{ x: 2 }] });
  expect(await project({ double: { $multiply: ["$c", 2] }, first: { $first: "$a" } })).toEqual({
    _id: 20,
    double: 10,
    first: 1,
  });
  await expect(project({ "b.$": 1 })).rejects.toMatchObject({ serverCode: 51246 });
});

test("rejects forbidden operators at any depth for users, but not for the backend handle", async () => {
  const regex = { $regex: "^v" };
  const forbidden = {
    $regex: [
      () => plants.find({ name: regex }),
      () => plants.find({ name: /^v/ }),
      () => plants.count({ $or: [{ a: 1 }, { b: { $not: { $elemMatch: { c: { $in: [/x/] } } } } }] }),
      () => plants.updateOne({ name: regex }, { $set: { a: 1 } }),
      () => plants.updateOne({}, { $pull: { tags: regex } }),
      () => plants.updateOne({}, { $set: { "a.$[x]": 1 } }, { arrayFilters: [{ x: regex }] }),
      () => plants.findOneAndDelete({ name: regex }),
      () => plants.find({}, { projection: { b: { $elemMatch: { c: regex } } } }),
      () => plants.aggregate([{ $match: { name: regex } }]),
    ],
    $expr: [() => plants.find({ $expr: { $eq: [1, 1] } })],
    $jsonSchema: [() => plants.deleteMany({ $nor: [{ $jsonSchema: {} }] })],
    $bitsAllSet: [() => plants.find({ a: { $bitsAllSet: 1 } })],
    $setIsSubset: [
      () => plants.aggregate([{ $project: { a: { $setIsSubset: ["$tags", []] } } }]),
      () => plants.find({}, { projection: { a: { $map: { input: [1], in: { $setIsSubset: [[], []] } } } } }),
      () => plants.updateOne({}, [{ $set: { a: { $setIsSubset: [[], []] } } }]),
    ],
  };
  for (const [operator, calls] of Object.entries(forbidden)) {
    for (const call of calls) {
      await expect(call()).rejects.toMatchObject({ message: `users may not use the operator ${operator}`, code: 4305 });
    }
  }
  // Below $eq, { $regex: … } is a literal value.
  expect(await plants.find({ a: { $eq: regex } })).toEqual([]);

  const backend = await openBackend({ definition: openDefinition(), store: STORE });
  const all = backend.collection("db", "c");
  await all.insertMany([
    { _id: 1, name: "venus", n: 6 },
    { _id: 2, name: "moss" },
  ]);
  expect(ids(await all.find({ name: { $regex: "^V", $options: "i" } }))).toEqual([1]);
  expect(ids(await all.find({ $expr: { $eq: [{ $strLenCP: "$name" }, 4] } }))).toEqual([2]);
  expect(ids(await all.find({ $jsonSchema: { required: ["n"] }, n: { $bitsAllSet: [1, 2] } }))).toEqual([1]);
  await expect(all.find({ $expr: { $divide: [1, "$zero"] } })).resolves.toEqual([]);
  await expect(all.find({ $expr: { $divide: [1, 0] } })).rejects.toMatchObject({ serverCode: 2 });
});

test("invalid arguments reject the promise, and never throw", async () => {
  const circular = {};
  circular.self = circular;
  for (const [call, message] of [
    [() => plants.find(1), "Expected 'filter' to be an object, got a number"],
    [() => plants.find([]), "Expected 'filter' to be an object, got an array"],
    [() => plants.findOne({}, 1), "Expected 'options' to be an object, got a number"],
    [() => plants.find({}, { limit: -1 }), "'limit' must not be negative"],
    [() => plants.find({}, { limit: 1.5 }), "'limit' of find must be a whole number, got double"],
    [() => plants.find({}, { sort: 1 }), "'sort' of find must be a document, got int"],
    [() => plants.updateOne({}), "Expected 'update' to be an object, got undefined"],
    [
      () => plants.updateOne({}, { $set: { a: 1 } }, { upsert: 1 }),
      "'upsert' of updateOne must be true or false, got int",
    ],
    [() => plants.insertOne(circular), "contains itself"],
    [() => plants.insertOne({ date: new Date(Number.NaN) }), "the date at 'date' is invalid"],
    [() => plants.insertOne({ n: 2n ** 64n }), "does not fit into a 64-bit integer"],
    [() => plants.insertOne({ "a\0b": 1 }), "must not contain null bytes"],
    [() => plants.insertMany([1]), "'documents' must hold documents alone"],
  ]) {
    const promise = call();
    expect(promise).toBeInstanceOf(Promise);
    await expect(promise).rejects.toThrow(message);
  }
});

test("rejects a query that returns too many documents instead of truncating it", async () => {
  await plants.insertMany(Array.from({ length: 16 }, (_, n) => ({ _id: 100 + n })));
  await expect(plants.find()).rejects.toMatchObject({
    message: expect.stringContaining("more than 20 documents"),
    errorCode: "ReadSizeLimitExceeded",
  });
  await expect(plants.find({}, { sort: { name: 1 } })).rejects.toThrow("more than 20 documents");
  await expect(plants.aggregate([])).rejects.toThrow("more than 20 documents");
  expect(await plants.find({}, { limit: 20 })).toHaveLength(20);
  expect(await plants.count()).toBe(21);
});
