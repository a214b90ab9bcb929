"use strict";

const { ObjectId } = require("bson");

// A backend in memory, with as much of the query language as the tests use.

const plain = (value) => (value?._bsontype === "ObjectId" ? value.toHexString() : value);
const comparable = (value) =>
  Object.prototype.toString.call(value) === "[object Date]" ? value.getTime() : plain(value);

const equal = (a, b) => {
  const [left, right] = [comparable(a), comparable(b)];
  return typeof left === "object" && left !== null ? JSON.stringify(left) === JSON.stringify(right) : left === right;
};
const matchesValue = (held, wanted) =>
  equal(held, wanted) || (Array.isArray(held) && held.some((item) => equal(item, wanted)));

const OPERATORS = {
  $eq: matchesValue,
  $ne: (held, wanted) => !matchesValue(held, wanted),
  $gt: (held, wanted) => comparable(held) > comparable(wanted),
  $gte: (held, wanted) => comparable(held) >= comparable(wanted),
  $lt: (held, wanted) => comparable(held) < comparable(wanted),
  $lte: (held, wanted) => comparable(held) <= comparable(wanted),
  $in: (held, wanted) => wanted.some((item) => matchesValue(held, item)),
  $exists: (held, wanted) => (held !== undefined) === wanted,
};

const get = (document, path) => path.split(".").reduce((value, name) => value?.[name], document);

function set(document, path, value) {
  const names = path.split(".");
  const last = names.pop();
  let holder = document;
  for (const name of names) {
    holder[name] ??= {};
    holder = holder[name];
  }
  holder[last] = value;
}

const isOperators = (value) =>
  typeof value === "object" && value !== null && Object.keys(value).some((name) => name.startsWith("$"));

function matches(document, filter) {
  return Object.entries(filter).every(([name, wanted]) => {
    if (name === "$or") {
      return wanted.some((alternative) => matches(document, alternative));
    }
    const held = get(document, name);
    if (!isOperators(wanted)) {
      return matchesValue(held, wanted);
    }
    return Object.entries(wanted).every(([operator, operand]) => OPERATORS[operator](held, operand));
  });
}

const UPDATES = {
  $set: set,
  $setOnInsert: () => {},
  $unset: (document, path) => delete document[path],
  $inc: (document, path, by) => set(document, path, (get(document, path) ?? 0) + by),
  $push: (document, path, item) => set(document, path, [...(get(document, path) ?? []), item]),
  $pull: (document, path, item) =>
    set(
      document,
      path,
      (get(document, path) ?? []).filter((held) => !equal(held, item)),
    ),
  $addToSet: (document, path, item) => matchesValue(get(document, path), item) || UPDATES.$push(document, path, item),
};

function update(document, changes) {
  if (!isOperators(changes)) {
    const { _id } = document;
    for (const name of Object.keys(document)) {
      delete document[name];
    }
    return Object.assign(document, { _id }, changes);
  }
  for (const [operator, fields] of Object.entries(changes)) {
    for (const [path, value] of Object.entries(fields)) {
      UPDATES[operator](document, path, value);
    }
  }
  return document;
}

const sorted = (documents, order) =>
  order === undefined
    ? documents
    : [...documents].sort((a, b) => {
        for (const [name, direction] of Object.entries(order)) {
          const [left, right] = [comparable(get(a, name)), comparable(get(b, name))];
          if (left !== right) {
            return left < right ? -direction : direction;
          }
        }
        return 0;
      });

function project(document, projection) {
  if (document === null || projection === undefined || !Object.values(projection).includes(1)) {
    return document;
  }
  const names = Object.keys(projection).filter((name) => projection[name] === 1);
  return Object.fromEntries(
    ["_id", ...names]
      .filter((name) => projection[name] !== 0 && name in document)
      .map((name) => [name, document[name]]),
  );
}

function group(documents, { _id, ...fields }) {
  const value = (document, expression) =>
    typeof expression === "string" && expression.startsWith("$") ? get(document, expression.slice(1)) : expression;
  const groups = new Map();
  for (const document of documents) {
    const key = value(document, _id) ?? null;
    const held = groups.get(key) ?? { _id: key };
    for (const [name, { $sum }] of Object.entries(fields)) {
      held[name] = (held[name] ?? 0) + value(document, $sum);
    }
    groups.set(key, held);
  }
  return [...groups.values()];
}

/** Creates a backend with `data`: documents by the names of collections, in any database. */
function fakeBackend(data = {}) {
  const collections = new Map(Object.entries(structuredCloneWithIds(data)));
  const calls = [];
  const of = (name) => collections.get(name) ?? collections.set(name, []).get(name);
  const select = (args, filter) => of(args.collection).filter((document) => matches(document, filter));

  const STAGES = {
    $match: (documents, filter) => documents.filter((document) => matches(document, filter)),
    $sort: sorted,
    $skip: (documents, count) => documents.slice(count),
    $limit: (documents, count) => documents.slice(0, count),
    $group: group,
    $project: (documents, projection) => documents.map((document) => project(document, projection)),
    $merge: (documents, { into }) => {
      for (const document of documents) {
        methods.replaceOne({ collection: into, query: { _id: document._id }, update: document, upsert: true });
      }
      return [];
    },
  };

  function insert(collection, document) {
    const inserted = { _id: new ObjectId(), ...document };
    if (of(collection).some(({ _id }) => equal(_id, inserted._id))) {
      throw Object.assign(new Error(`Duplicate key error: _id ${plain(inserted._id)}`), {
        code: 11000,
        errorCode: "MongoDBError",
      });
    }
    of(collection).push(inserted);
    return inserted._id;
  }

  function upserted({ collection, upsert }, filter, changes) {
    if (!upsert) {
      return null;
    }
    const equalities = Object.entries(filter).filter(([name, value]) => !name.startsWith("$") && !isOperators(value));
    const document = update({ ...Object.fromEntries(equalities), ...changes.$setOnInsert }, changes);
    insert(collection, document);
    return of(collection).at(-1);
  }

  function modify(args, documents) {
    const { query, update: changes } = args;
    for (const document of documents) {
      update(document, changes);
    }
    const created = documents.length === 0 ? upserted(args, query, changes) : null;
    const counts = { matchedCount: documents.length, modifiedCount: documents.length };
    return created === null ? counts : { ...counts, upsertedId: created._id };
  }

  const methods = {
    find: (args) => {
      const { query, project: projection, sort, skip = 0, limit = 0 } = args;
      const found = sorted(select(args, query), sort).slice(skip);
      return (limit > 0 ? found.slice(0, limit) : found).map((document) => project(document, projection));
    },
    findOne: (args) => project(select(args, args.query)[0] ?? null, args.project),
    findOneAndUpdate: (args) => {
      const { filter, update: changes, sort, returnNewDocument } = args;
      const found = sorted(select(args, filter), sort)[0];
      if (found === undefined) {
        const created = upserted(args, filter, changes);
        return returnNewDocument ? created : null;
      }
      const before = structuredCloneWithIds(found);
      update(found, changes);
      return returnNewDocument ? found : before;
    },
    findOneAndReplace: (args) => methods.findOneAndUpdate(args),
    findOneAndDelete: (args) => {
      const found = sorted(select(args, args.filter), args.sort)[0] ?? null;
      collections.set(
        args.collection,
        of(args.collection).filter((document) => document !== found),
      );
      return found;
    },
    insertOne: ({ collection, document }) => ({ insertedId: insert(collection, document) }),
    insertMany: ({ collection, documents }) => ({ insertedIds: documents.map((item) => insert(collection, item)) }),
    updateOne: (args) => modify(args, select(args, args.query).slice(0, 1)),
    updateMany: (args) => modify(args, select(args, args.query)),
    replaceOne: (args) => methods.updateOne(args),
    deleteOne: (args) => remove(args, select(args, args.query).slice(0, 1)),
    deleteMany: (args) => remove(args, select(args, args.query)),
    count: (args) => select(args, args.query).length,
    distinct: (args) => [...new Set(select(args, args.query).map((document) => get(document, args.field)))],
    aggregate: ({ collection, pipeline }) =>
      pipeline.reduce((documents, stage) => {
        const [name, argument] = Object.entries(stage)[0];
        return STAGES[name](documents, argument);
      }, of(collection)),
    bulkWrite: ({ collection, operations }) => {
      for (const operation of operations) {
        const [name, { filter, replacement, ...fields }] = Object.entries(operation)[0];
        methods[name]({ collection, query: filter, ...fields, update: fields.update ?? replacement });
      }
      return {};
    },
    getDBNames: () => ["app", "archive"],
    getCollectionNames: () => [...collections.keys()],
    startTransaction: () => ({ transaction: calls.length }),
    commitTransaction: () => null,
    abortTransaction: () => null,
  };

  function remove({ collection }, documents) {
    collections.set(
      collection,
      of(collection).filter((document) => !documents.includes(document)),
    );
    return { deletedCount: documents.length };
  }

  return {
    calls,
    read: (name) => of(name),
    seed: (more) => {
      for (const [name, documents] of Object.entries(structuredCloneWithIds(more))) {
        collections.set(name, documents);
      }
    },
    call(callId, isSystem, service, name, given) {
      const args = structuredCloneWithIds(given);
      calls.push({ callId, isSystem, service, name, args });
      if (name.startsWith("get")) {
        return methods[name](args);
      }
      return new Promise((resolve) => {
        setImmediate(resolve);
      }).then(() => methods[name](args));
    },
    mayExecute: () => true,
  };
}

/** Copies documents. Values of BSON and dates stay as they are. */
function structuredCloneWithIds(value) {
  if (Array.isArray(value)) {
    return value.map(structuredCloneWithIds);
  }
  const isDocument = typeof value === "object" && value !== null && value._bsontype === undefined;
  return isDocument && Object.prototype.toString.call(value) === "[object Object]"
    ? Object.fromEntries(Object.entries(value).map(([name, field]) => [name, structuredCloneWithIds(field)]))
    : value;
}

module.exports = { fakeBackend };
