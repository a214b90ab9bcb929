"use strict";

const {
  checkArray,
  checkFilter,
  checkObject,
  checkOptional,
  checkOptionalFilter,
  checkOptions,
  checkPipeline,
  checkString,
  checkUpdate,
} = require("./arguments.js");
const { BulkOperation, checkOperations } = require("./bulk.js");
const { AggregationCursor, FindCursor } = require("./cursor.js");
const { CallError } = require("./errors.js");
const { freezeClasses } = require("./frozen.js");

/** Returns true if a pipeline writes, and therefore runs even if its cursor is not read. */
const writes = (pipeline) => {
  const last = Array.isArray(pipeline) ? pipeline.at(-1) : undefined;
  return typeof last === "object" && last !== null && ("$merge" in last || "$out" in last);
};

/** A collection as functions see it. It differs from the SDK's. */
class FunctionCollection {
  #source;
  #namespace;

  /** `source` is the data source: `run(name, session, makeArguments)` starts an operation. */
  constructor(source, database, name) {
    this.#source = source;
    this.#namespace = { database, collection: name };
    Object.defineProperty(this, "name", { value: name, enumerable: true });
  }

  #run(name, options, makeArguments) {
    return this.#source.run(name, options?.session, () => {
      checkOptions(name, options);
      return { ...this.#namespace, ...makeArguments(options ?? {}) };
    });
  }

  find(query, projection, options) {
    return new FindCursor(this.#source, (modifiers) =>
      this.#run("find", options, () => ({
        query: checkOptionalFilter("find", query),
        project: checkOptional("find", "projection", projection),
        ...modifiers,
      })),
    );
  }

  findOne(query, projection, options) {
    return this.#run("findOne", options, () => ({
      query: checkOptionalFilter("findOne", query),
      project: checkOptional("findOne", "projection", projection),
    }));
  }

  #findAndModify(name, query, options, makeUpdate) {
    return this.#run(name, options, ({ sort, projection, upsert, returnNewDocument }) => {
      const filter = checkFilter(name, query);
      const selection = {
        sort: checkOptional(name, "sort", sort),
        projection: checkOptional(name, "projection", projection),
      };
      return makeUpdate === undefined
        ? { filter, ...selection }
        : { filter, update: makeUpdate(), ...selection, upsert, returnNewDocument };
    });
  }

  findOneAndUpdate(query, update, options) {
    const name = "findOneAndUpdate";
    return this.#findAndModify(name, query, options, () => checkUpdate(name, update));
  }

  findOneAndReplace(query, replacement, options) {
    const name = "findOneAndReplace";
    return this.#findAndModify(name, query, options, () => checkObject(name, "replacement", replacement));
  }

  findOneAndDelete(query, options) {
    return this.#findAndModify("findOneAndDelete", query, options);
  }

  insertOne(document, options) {
    return this.#run("insertOne", options, () => ({ document: checkObject("insertOne", "document", document) }));
  }

  insertMany(documents, options) {
    return this.#run("insertMany", options, ({ ordered = true }) => {
      for (const document of checkArray("insertMany", "documents", documents)) {
        checkObject("insertMany", "documents", document);
      }
      return { documents, ordered };
    });
  }

  updateOne(query, update, options) {
    return this.#update("updateOne", query, update, options);
  }

  updateMany(query, update, options) {
    return this.#update("updateMany", query, update, options);
  }

  #update(name, query, update, options) {
    return this.#run(name, options, ({ upsert, arrayFilters }) => ({
      query: checkFilter(name, query),
      update: checkUpdate(name, update),
      upsert,
      arrayFilters: arrayFilters === undefined ? undefined : checkArray(name, "arrayFilters", arrayFilters),
    }));
  }

  replaceOne(query, replacement, options) {
    return this.#run("replaceOne", options, ({ upsert }) => ({
      query: checkFilter("replaceOne", query),
      update: checkObject("replaceOne", "replacement", replacement),
      upsert,
    }));
  }

  deleteOne(query, options) {
    return this.#run("deleteOne", options, () => ({ query: checkFilter("deleteOne", query) }));
  }

  deleteMany(query, options) {
    return this.#run("deleteMany", options, () => ({ query: checkFilter("deleteMany", query) }));
  }

  aggregate(pipeline, options) {
    const cursor = new AggregationCursor(this.#source, () =>
      this.#run("aggregate", options, () => ({ pipeline: checkPipeline("aggregate", pipeline) })),
    );
    if (writes(pipeline)) {
      cursor.start();
    }
    return cursor;
  }

  count(query, options) {
    return this.#source.markCount(
      this.#run("count", options, ({ limit }) => ({ query: checkOptionalFilter("count", query), limit })),
    );
  }

  countDocuments(query, options) {
    return this.count(query, options);
  }

  distinct(field, query, options) {
    return this.#run("distinct", options, () => ({
      field: checkString("distinct", "field", field),
      query: checkOptionalFilter("distinct", query),
    }));
  }

  bulkWrite(operations, options) {
    return this.#bulkWrite(operations, options);
  }

  #bulkWrite(operations, options) {
    const written = this.#run("bulkWrite", options, ({ ordered = true, bypassDocumentValidation = false }) => {
      if (bypassDocumentValidation && !this.#source.isSystem) {
        throw new CallError("bulkWrite: bypassDocumentValidation requires a system function");
      }
      const bypass = bypassDocumentValidation ? { bypassDocumentValidation: true } : {};
      return { operations: checkOperations(operations), ordered, ...bypass };
    });
    return written.then(() => null);
  }

  initializeOrderedBulkOp(options) {
    return new BulkOperation(this.#source, (operations) => this.#bulkWrite(operations, { ...options, ordered: true }));
  }

  initializeUnorderedBulkOp(options) {
    return new BulkOperation(this.#source, (operations) => this.#bulkWrite(operations, { ...options, ordered: false }));
  }
}

freezeClasses(FunctionCollection);

module.exports = { FunctionCollection };
