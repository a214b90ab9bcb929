"use strict";

const { runFunction, withCollection } = require("./functions/run.js");

const DATA = { items: [1, 2, 3, 4].map((n) => ({ _id: n, n, kind: n % 2 ? "odd" : "even" })) };

/** Runs statements with `collection` and returns the result and the operations of the backend. */
const run = async (statements, options = {}) => {
  const { value, calls, backend } = await runFunction(withCollection(statements), [], { data: DATA, ...options });
  return { value, backend, operations: calls.map(({ name, args }) => ({ name, ...args })) };
};

const ids = (...numbers) => numbers.map((_id) => expect.objectContaining({ _id }));

describe("collection", () => {
  test.each([
    ["findOne", "collection.findOne({ n: 2 })", { _id: 2, n: 2, kind: "even" }],
    ["findOne without a filter", "collection.findOne()", { _id: 1, n: 1, kind: "odd" }],
    ["findOne with a projection", "collection.findOne({ n: 2 }, { kind: 1 })", { _id: 2, kind: "even" }],
    ["findOne without a match", "collection.findOne({ n: 9 })", null],
    ["find", "collection.find({ kind: 'odd' }).toArray()", ids(1, 3)],
    ["find with a projection", "collection.find({ n: 1 }, { n: 1, _id: 0 }).toArray()", [{ n: 1 }]],
    ["find with sort, skip and limit", "collection.find().sort({ n: -1 }).skip(1).limit(2).toArray()", ids(3, 2)],
    ["insertOne", "collection.insertOne({ _id: 9 })", { insertedId: 9 }],
    ["insertMany", "collection.insertMany([{ _id: 8 }, { _id: 9 }])", { insertedIds: [8, 9] }],
    ["updateOne", "collection.updateOne({ n: 1 }, { $set: { a: 1 } })", { matchedCount: 1, modifiedCount: 1 }],
    ["updateMany", "collection.updateMany({}, { $inc: { n: 1 } })", { matchedCount: 4, modifiedCount: 4 }],
    [
      "an update with upsert",
      "collection.updateOne({ _id: 9 }, { $set: { a: 1 } }, { upsert: true })",
      { matchedCount: 0, modifiedCount: 0, upsertedId: 9 },
    ],
    ["replaceOne", "collection.replaceOne({ n: 1 }, { b: 1 })", { matchedCount: 1, modifiedCount: 1 }],
    ["deleteOne", "collection.deleteOne({ n: 1 })", { deletedCount: 1 }],
    ["deleteMany", "collection.deleteMany({ kind: 'odd' })", { deletedCount: 2 }],
    ["findOneAndUpdate", "collection.findOneAndUpdate({ n: 1 }, { $set: { a: 1 } })", { _id: 1, n: 1, kind: "odd" }],
    [
      "findOneAndUpdate with returnNewDocument",
      "collection.findOneAndUpdate({ n: 1 }, { $set: { a: 1 } }, { returnNewDocument: true })",
      { _id: 1, n: 1, kind: "odd", a: 1 },
    ],
    [
      "findOneAndReplace",
      "collection.findOneAndReplace({ n: 1 }, { a: 1 }, { returnNewDocument: true })",
      { _id: 1, a: 1 },
    ],
    ["findOneAndDelete", "collection.findOneAndDelete({ kind: 'odd' }, { sort: { n: -1 } })", ids(3)[0]],
    ["aggregate", "collection.aggregate([{ $match: { kind: 'odd' } }, { $sort: { n: -1 } }]).toArray()", ids(3, 1)],
    ["aggregate with skip", "collection.aggregate([{ $match: {} }]).skip(3).toArray()", ids(4)],
    ["count", "collection.count({ kind: 'odd' })", 2],
    ["countDocuments", "collection.countDocuments()", 4],
    ["distinct", "collection.distinct('kind', {})", ["odd", "even"]],
    ["bulkWrite", "collection.bulkWrite([{ insertOne: { document: { _id: 9 } } }])", null],
  ])("has %s", async (_name, expression, expected) => {
    const { value } = await run(`return await ${expression};`);
    expect(value).toEqual(expected);
  });

  test.each([
    [
      "find",
      "await collection.find({ a: 1 }, { b: 1 }).sort({ c: 1 }).skip(1).limit(2).toArray()",
      { query: { a: 1 }, project: { b: 1 }, sort: { c: 1 }, skip: 1, limit: 2 },
    ],
    ["findOne", "await collection.findOne({ n: 1 }, { n: 1 })", { query: { n: 1 }, project: { n: 1 } }],
    [
      "findOneAndUpdate",
      "await collection.findOneAndUpdate({ n: 1 }, { $set: { a: 1 } }, { sort: { n: 1 }, projection: { n: 1 }, upsert: true, returnNewDocument: true, returnDocument: 'after' })",
      {
        filter: { n: 1 },
        update: { $set: { a: 1 } },
        sort: { n: 1 },
        projection: { n: 1 },
        upsert: true,
        returnNewDocument: true,
      },
    ],
    [
      "insertMany",
      "await collection.insertMany([{ _id: 9 }], { ordered: false })",
      { documents: [{ _id: 9 }], ordered: false },
    ],
    [
      "updateMany",
      "await collection.updateMany({ n: 1 }, { $set: { a: 1 } }, { upsert: false, arrayFilters: [{ x: 1 }] })",
      { query: { n: 1 }, update: { $set: { a: 1 } }, upsert: false, arrayFilters: [{ x: 1 }] },
    ],
    [
      "replaceOne",
      "await collection.replaceOne({ n: 1 }, { a: 1 }, { upsert: true })",
      { query: { n: 1 }, update: { a: 1 }, upsert: true },
    ],
    ["count", "await collection.count({ n: 1 }, { limit: 5 })", { query: { n: 1 }, limit: 5 }],
    ["distinct", "await collection.distinct('n')", { field: "n", query: {} }],
  ])("sends the arguments of %s", async (name, statement, args) => {
    const { operations } = await run(statement);
    expect(operations).toEqual([{ name, database: "app", collection: "items", ...args }]);
  });

  test.each([["watch", "createIndex", "drop", "insert", "update", "remove", "estimatedDocumentCount", "then"]])(
    "has no other methods",
    async (...names) => {
      const { value } = await run(`return ${JSON.stringify(names)}.map((name) => typeof collection[name]);`);
      expect(new Set(value)).toEqual(new Set(["undefined"]));
    },
  );

  test("fails with a TypeError for an unknown method", async () => {
    await expect(run("collection.drop();")).rejects.toThrow("TypeError: collection.drop is not a function");
  });

  const failing = [
    ["findOne", "collection.findOne('a')", 'findOne: "query" argument must be an object'],
    ["find", "collection.find({}, 'a').toArray()", 'find: "projection" argument must be an object'],
    ["insertOne", "collection.insertOne()", 'insertOne: "document" argument must be an object'],
    ["insertMany", "collection.insertMany({})", 'insertMany: "documents" argument must be an array'],
    ["updateOne", "collection.updateOne({})", 'updateOne: "update" argument must be an object'],
    ["deleteMany", "collection.deleteMany(undefined)", 'deleteMany: "query" argument must be an object'],
    ["aggregate", "collection.aggregate({}).toArray()", 'aggregate: "pipeline" argument must be an array'],
    ["distinct", "collection.distinct({})", 'distinct: "field" argument must be a string'],
    ["options", "collection.deleteOne({}, 1)", 'deleteOne: "options" argument must be an object'],
    ["limit", "collection.find().limit('1')", 'limit: "limit" argument must be a non-negative whole number'],
    ["bulkWrite", "collection.bulkWrite([{ lost: {} }])", "bulkWrite: an operation must have one of the fields"],
    ["validation", "collection.bulkWrite([], { bypassDocumentValidation: true })", "requires a system function"],
    ["db", "client.db()", 'db: "name" argument must be a string'],
  ];

  test.each(failing)("rejects wrong arguments of %s", async (_name, expression, message) => {
    const { value, operations } = await run(
      `try { await ${expression}; } catch (error) { return [error.name, error instanceof Error, error.message]; }`,
    );
    expect(value).toEqual(["FunctionError", true, expect.stringContaining(message)]);
    expect(operations).toEqual([]);
  });

  test.each([
    "findOne({ n: undefined })",
    "find({ a: { $in: [undefined] } }).toArray()",
    "count({ a: { b: undefined } })",
    "updateOne({ n: undefined }, { $set: { a: 1 } })",
    "deleteMany({ n: undefined })",
    "deleteMany({ n: () => 1 })",
    "deleteMany({ n: Symbol() })",
    "findOneAndDelete({ n: undefined })",
    "distinct('n', { n: undefined })",
    "aggregate([{ $match: { n: undefined } }]).toArray()",
    "aggregate([{ $lookup: { pipeline: [{ $match: { n: undefined } }] } }]).toArray()",
    "bulkWrite([{ deleteMany: { filter: { n: undefined } } }])",
    "initializeOrderedBulkOp().find({ n: undefined }).delete().execute()",
  ])("rejects undefined in the filter of %s", async (expression) => {
    const call = run(`await collection.${expression};`);
    await expect(call).rejects.toMatchObject({
      message: "(BadValue) cannot compare to undefined",
      errorCode: "MongoDBError",
    });
  });

  test("gives documents of the function's realm", async () => {
    const data = { items: [{ _id: 1, at: new Date(5), tags: ["a"], inner: {} }] };
    const { value } = await run(
      `const d = await collection.findOne({});
       return [d instanceof Object, d.constructor === Object, d.at instanceof Date, d.at.getTime(), d.tags instanceof Array, d.inner instanceof Object];`,
      { data },
    );
    expect(value).toEqual([true, true, true, 5, true, true]);
  });

  test("gives promises of the function's realm", async () => {
    const { value } = await run(
      "return [collection.findOne() instanceof Promise, collection.find().toArray() instanceof Promise, collection.bulkWrite([]) instanceof Promise];",
    );
    expect(value).toEqual([true, true, true]);
  });
});

describe("bulk writes", () => {
  test("accept both shapes of an insertion, and all operations", async () => {
    const { operations } = await run(`await collection.bulkWrite([
      { insertOne: { document: { _id: 8 } } },
      { insertOne: { document: { a: 1 }, _id: 9 } },
      { updateOne: { filter: { n: 1 }, update: { $set: { a: 1 } }, upsert: true } },
      { replaceOne: { filter: { n: 2 }, replacement: { b: 1 } } },
      { deleteMany: { filter: { n: 3 } } },
    ], { ordered: false });`);
    expect(operations).toEqual([
      {
        name: "bulkWrite",
        database: "app",
        collection: "items",
        ordered: false,
        operations: [
          { insertOne: { document: { _id: 8 } } },
          { insertOne: { document: { document: { a: 1 }, _id: 9 } } },
          { updateOne: { filter: { n: 1 }, update: { $set: { a: 1 } }, upsert: true } },
          { replaceOne: { filter: { n: 2 }, replacement: { b: 1 } } },
          { deleteMany: { filter: { n: 3 } } },
        ],
      },
    ]);
  });

  test.each([
    ["initializeOrderedBulkOp", true],
    ["initializeUnorderedBulkOp", false],
  ])("are built with %s", async (name, ordered) => {
    const { value, operations, backend } = await run(`const bulk = collection.${name}();
      bulk.insert({ _id: 9 });
      bulk.find({ n: 1 }).upsert().updateOne({ $set: { a: 1 } });
      bulk.find({ n: 2 }).update({ $set: { a: 2 } });
      bulk.find({ n: 3 }).replaceOne({ b: 1 });
      bulk.find({ n: 4 }).deleteOne().find({ n: 5 }).delete();
      return await bulk.execute();`);
    expect(value).toBeNull();
    expect(operations[0].ordered).toBe(ordered);
    expect(operations[0].operations).toEqual([
      { insertOne: { document: { _id: 9 } } },
      { updateOne: { filter: { n: 1 }, update: { $set: { a: 1 } }, upsert: true } },
      { updateMany: { filter: { n: 2 }, update: { $set: { a: 2 } } } },
      { replaceOne: { filter: { n: 3 }, replacement: { b: 1 } } },
      { deleteOne: { filter: { n: 4 } } },
      { deleteMany: { filter: { n: 5 } } },
    ]);
    expect(backend.read("items").map(({ _id }) => _id)).toEqual([1, 2, 3, 9]);
  });
});

describe("cursor", () => {
  test.each([
    ["next", "[await cursor.next(), await cursor.next()]", ids(1, 2)],
    ["next after the last", "(await cursor.toArray(), await cursor.next())", undefined],
    ["toArray after next", "(await cursor.next(), await cursor.toArray())", ids(2, 3, 4)],
    ["hasNext", "[await cursor.hasNext(), (await cursor.toArray()).length, await cursor.hasNext()]", [true, 4, false]],
    ["map", "await cursor.map((d) => d.n).map((n) => n * 2).toArray()", [2, 4, 6, 8]],
    [
      "forEach",
      "await (async () => { const all = []; await cursor.forEach((d) => { all.push(d.n); }); return all; })()",
      [1, 2, 3, 4],
    ],
    ["close", "(await cursor.close(), await cursor.next())", undefined],
    [
      "for await",
      "await (async () => { const all = []; for await (const d of cursor) { all.push(d.n); } return all; })()",
      [1, 2, 3, 4],
    ],
    ["await", "(await cursor) === cursor", true],
  ])("supports %s", async (_name, expression, expected) => {
    const { value } = await run(`const cursor = collection.find(); return ${expression};`);
    expect(value).toEqual(expected);
  });

  test("reads nothing unless it is used", async () => {
    const { operations } = await run("collection.find(); collection.aggregate([]);");
    expect(operations).toEqual([]);
  });

  test("rejects changes after it has been read", async () => {
    const call = run("const cursor = collection.find(); await cursor.next(); cursor.limit(1);");
    await expect(call).rejects.toThrow("limit: the cursor has already been read");
  });
});

describe("databases", () => {
  test("lists names at once", async () => {
    const { value } = await run(
      "const names = client.admin().getDBNames(); return [names instanceof Array, names, client.db('app').getCollectionNames()];",
    );
    expect(value).toEqual([true, ["app", "archive"], ["items"]]);
  });

  test("throws the error of the backend at once", async () => {
    const backend = {
      call: () => {
        throw Object.assign(new Error("not permitted"), { errorCode: "MongoDBError" });
      },
    };
    const { value } = await runFunction(
      withCollection(
        "try { client.admin().getDBNames(); } catch (e) { return [e.name, e instanceof Error, e.message]; }",
      ),
      [],
      { backend },
    );
    expect(value).toEqual(["FunctionError", true, "not permitted"]);
  });
});

describe("sessions", () => {
  const names = ({ operations }) => operations.map(({ name, transaction }) => [name, transaction]);

  test("commit a transaction", async () => {
    const result = await run(`const session = client.startSession();
      session.startTransaction();
      await collection.insertOne({ _id: 9 }, { session });
      await collection.findOne({}, {}, { session });
      await collection.count({});
      await session.commitTransaction();
      await session.endSession();`);
    expect(names(result)).toEqual([
      ["startTransaction", undefined],
      ["insertOne", 1],
      ["findOne", 1],
      ["count", undefined],
      ["commitTransaction", 1],
    ]);
  });

  test("abort a transaction", async () => {
    const result = await run(`const session = client.startSession();
      session.startTransaction();
      await collection.updateOne({}, { $set: { a: 1 } }, { session });
      await session.abortTransaction();
      await session.abortTransaction();`);
    expect(names(result).map(([name]) => name)).toEqual(["startTransaction", "updateOne", "abortTransaction"]);
  });

  test("run a function in a transaction", async () => {
    const result = await run(`const session = client.startSession();
      return await session.withTransaction(async () => (await collection.insertOne({ _id: 9 }, { session })).insertedId);`);
    expect(result.value).toBe(9);
    expect(names(result).map(([name]) => name)).toEqual(["startTransaction", "insertOne", "commitTransaction"]);
  });

  test("abort when the function throws, with its error", async () => {
    const { value, operations } = await run(`const session = client.startSession();
      class Refused extends Error {}
      try {
        await session.withTransaction(async () => { await collection.findOne({}, {}, { session }); throw new Refused("no"); });
      } catch (error) {
        const isOpen = session.inTransaction();
        await session.abortTransaction();
        return [error instanceof Refused, error.message, isOpen];
      } finally { await session.endSession(); }`);
    expect(value).toEqual([true, "no", false]);
    expect(operations.map(({ name }) => name)).toEqual(["startTransaction", "findOne", "abortTransaction"]);
  });

  /** A backend whose first commits fail with an error. */
  const conflicting = (failures, fields) => ({
    commits: 0,
    aborts: 0,
    call(_id, _isSystem, _service, name) {
      if (name === "commitTransaction" && this.commits++ < failures) {
        throw Object.assign(new Error("WriteConflict"), fields);
      }
      this.aborts += name === "abortTransaction" ? 1 : 0;
      return name === "startTransaction" ? { transaction: this.commits } : { insertedId: 1 };
    },
  });

  const counted = withCollection(`let runs = 0;
    await client.startSession().withTransaction(async (session) => { runs++; await collection.insertOne({}, { session }); });
    return runs;`);

  test.each([
    ["code", { code: 112 }],
    ["server code", { serverCode: 112 }],
    ["label", { errorLabels: ["TransientTransactionError"] }],
  ])("repeat a transaction with a conflict, by its %s", async (_name, fields) => {
    const backend = conflicting(3, fields);
    expect((await runFunction(counted, [], { backend })).value).toBe(4);
  });

  test("do not repeat a transaction after another error", async () => {
    const backend = conflicting(1, { code: 1 });
    await expect(runFunction(counted, [], { backend })).rejects.toThrow("WriteConflict");
    expect(backend.commits).toBe(1);
  });

  test("repeat a transaction only within its time", async () => {
    const backend = conflicting(Number.POSITIVE_INFINITY, { code: 112 });
    await expect(runFunction(counted, [], { backend, limits: { transactionTime: 20 } })).rejects.toThrow(
      "WriteConflict",
    );
    expect(backend.commits).toBeGreaterThan(1);
  });

  test("begin and end a transaction without operations in the function alone", async () => {
    const result = await run(`const session = client.startSession();
      const states = [session.inTransaction()];
      await session.withTransaction(async () => states.push(session.inTransaction()));
      session.startTransaction();
      await session.abortTransaction();
      return states;`);
    expect([result.value, names(result)]).toEqual([[false, true], []]);
  });

  test("return the result of the first commit when it is repeated", async () => {
    const result = await run(`const session = client.startSession();
      session.startTransaction();
      await collection.insertOne({ _id: 9 }, { session });
      await session.commitTransaction();
      await session.commitTransaction();`);
    expect(names(result).map(([name]) => name)).toEqual(["startTransaction", "insertOne", "commitTransaction"]);
  });

  test("abort a transaction that the call leaves open", async () => {
    const result = await run(`const session = client.startSession(); session.startTransaction();
      await collection.insertOne({ _id: 9 }, { session });`);
    expect(names(result).at(-1)).toEqual(["abortTransaction", 1]);
  });

  test.each([
    [
      "nested transactions",
      "session.startTransaction(); session.startTransaction();",
      "Transaction already in progress",
    ],
    ["a commit without a transaction", "await session.commitTransaction();", "No transaction started"],
    ["an ended session", "await session.endSession(); session.startTransaction();", "the session has ended"],
    [
      "something else as a session",
      "await collection.findOne({}, {}, { session: {} });",
      '"session" must be a session',
    ],
  ])("reject %s", async (_name, statements, message) => {
    await expect(run(`const session = client.startSession(); ${statements}`)).rejects.toThrow(message);
  });
});
