"use strict";

const { assert } = require("./assert.js");
const { ChangeStream } = require("./watch.js");

/**
 * A collection of a data source.
 *
 * `source.call(name, arguments)` calls a function of the data source, and
 * `source.watch(arguments)` opens a change stream of a collection. For a user, the rules of the
 * collection apply; for the operator, none.
 */
class MongoDBCollection {
  #call;
  #watch;

  constructor(source, serviceName, databaseName, name) {
    this.#call = (method, args) => source.call(method, within(databaseName, name, args));
    this.#watch = (args) => source.watch(within(databaseName, name, args));
    this.serviceName = serviceName;
    this.databaseName = databaseName;
    Object.defineProperty(this, "name", { value: name, enumerable: true });
  }

  async find(filter = {}, options = {}) {
    const { projection, sort, limit } = take(filter, options);
    return this.#call("find", { query: filter, project: projection, sort, limit });
  }

  async findOne(filter = {}, options = {}) {
    const { projection, sort } = take(filter, options);
    return this.#call("findOne", { query: filter, project: projection, sort });
  }

  async findOneAndUpdate(filter, update, options = {}) {
    const { projection, sort, upsert, returnNewDocument } = take(filter, options);
    checkUpdate(update);
    return this.#call("findOneAndUpdate", { filter, update, sort, projection, upsert, returnNewDocument });
  }

  async findOneAndReplace(filter, replacement, options = {}) {
    const { projection, sort, upsert, returnNewDocument } = take(filter, options);
    assert.object(replacement, "replacement");
    return this.#call("findOneAndReplace", {
      filter,
      update: replacement,
      sort,
      projection,
      upsert,
      returnNewDocument,
    });
  }

  async findOneAndDelete(filter = {}, options = {}) {
    const { projection, sort } = take(filter, options);
    return this.#call("findOneAndDelete", { filter, sort, projection });
  }

  async aggregate(pipeline) {
    return this.#call("aggregate", { pipeline: assert.array(pipeline, "pipeline") });
  }

  async count(filter = {}, options = {}) {
    const { limit } = take(filter, options);
    return this.#call("count", { query: filter, limit });
  }

  async insertOne(document) {
    return this.#call("insertOne", { document: assert.object(document, "document") });
  }

  async insertMany(documents) {
    return this.#call("insertMany", { documents: assert.array(documents, "documents") });
  }

  async deleteOne(filter = {}) {
    return this.#call("deleteOne", { query: assert.object(filter, "filter") });
  }

  async deleteMany(filter = {}) {
    return this.#call("deleteMany", { query: assert.object(filter, "filter") });
  }

  async updateOne(filter, update, options = {}) {
    const { upsert, arrayFilters } = take(filter, options);
    return this.#call("updateOne", { query: filter, update: checkUpdate(update), upsert, arrayFilters });
  }

  async updateMany(filter, update, options = {}) {
    const { upsert, arrayFilters } = take(filter, options);
    return this.#call("updateMany", { query: filter, update: checkUpdate(update), upsert, arrayFilters });
  }

  watch(options = {}) {
    const { ids, filter, resumeAfter } = assert.options(options, "options") ?? {};
    if (ids !== undefined) {
      assert.array(ids, "ids");
    }
    if (filter !== undefined) {
      assert.object(filter, "filter");
    }
    if (resumeAfter !== undefined) {
      assert.object(resumeAfter, "resumeAfter");
    }
    return new ChangeStream(() => this.#watch({ ids, filter, resumeAfter }));
  }
}

/** A collection for the operator, with methods for its indexes. */
class AdministeredCollection extends MongoDBCollection {
  #call;

  constructor(source, serviceName, databaseName, name) {
    super(source, serviceName, databaseName, name);
    this.#call = (method, args) => source.call(method, within(databaseName, name, args));
  }

  async createIndexes(indexes) {
    return this.#call("createIndexes", { indexes: assert.array(indexes, "indexes") });
  }

  async indexes() {
    return this.#call("indexes", {});
  }

  async dropIndex(name) {
    await this.#call("dropIndex", { name: assert.string(name, "name") });
  }

  async explain(filter = {}, options = {}) {
    const { projection, sort, limit } = take(filter, options);
    return this.#call("explain", { query: filter, project: projection, sort, limit });
  }
}

/**
 * Adds the names of the database and the collection to arguments. It changes them in place: a copy
 * would cost more than the rest of the call.
 */
function within(databaseName, name, args) {
  args.database = databaseName;
  args.collection = name;
  return args;
}

/** Checks an update: a document or a pipeline. */
const checkUpdate = (update) => (Array.isArray(update) ? update : assert.object(update, "update"));

function take(filter, options) {
  assert.object(filter, "filter");
  return assert.options(options, "options") ?? {};
}

/** Creates a data source, whose collections have the given class. Makes no request. */
function makeService(source, serviceName, Collection = MongoDBCollection) {
  return {
    serviceName,
    db: (databaseName) => ({
      name: assert.string(databaseName, "databaseName"),
      collection: (collectionName) =>
        new Collection(source, serviceName, databaseName, assert.string(collectionName, "collectionName")),
    }),
  };
}

module.exports = { AdministeredCollection, MongoDBCollection, makeService };
