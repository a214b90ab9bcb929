"use strict";

const { checkArray, checkFilter, checkObject, checkUpdate, isObject } = require("./arguments.js");
const { CallError } = require("./errors.js");
const { freezeClasses } = require("./frozen.js");

/** The fields of an insertion. One of the documented samples has the document itself. */
function insertion(fields) {
  const names = Object.keys(fields);
  const isWrapped = names.length === 1 && names[0] === "document" && isObject(fields.document);
  return { document: isWrapped ? fields.document : fields };
}

const update =
  (name) =>
  ({ filter, update: change, upsert, arrayFilters }) => ({
    filter: checkFilter(`bulkWrite: ${name}`, filter, "filter"),
    update: checkUpdate(`bulkWrite: ${name}`, change),
    upsert,
    arrayFilters,
  });

const deletion =
  (name) =>
  ({ filter }) => ({ filter: checkFilter(`bulkWrite: ${name}`, filter, "filter") });

/** The operations of a bulk write, and the functions that check their fields. */
const OPERATIONS = {
  insertOne: insertion,
  updateOne: update("updateOne"),
  updateMany: update("updateMany"),
  deleteOne: deletion("deleteOne"),
  deleteMany: deletion("deleteMany"),
  replaceOne: ({ filter, replacement, upsert }) => ({
    filter: checkFilter("bulkWrite: replaceOne", filter, "filter"),
    replacement: checkObject("bulkWrite: replaceOne", "replacement", replacement),
    upsert,
  }),
};

function checkOperation(operation) {
  const names = Object.keys(checkObject("bulkWrite", "operations", operation));
  const [name] = names;
  if (names.length !== 1 || !Object.hasOwn(OPERATIONS, name)) {
    const known = Object.keys(OPERATIONS).join(", ");
    throw new CallError(`bulkWrite: an operation must have one of the fields ${known}`, "InvalidParameter");
  }
  return { [name]: OPERATIONS[name](checkObject("bulkWrite", name, operation[name])) };
}

/** Checks the operations of a bulk write and returns them in one form. */
const checkOperations = (operations) => checkArray("bulkWrite", "operations", operations).map(checkOperation);

/** The operations of a bulk write for the documents that match a filter. */
class BulkFind {
  #bulk;
  #add;
  #filter;
  #upsert = undefined;

  constructor(bulk, add, filter) {
    this.#bulk = bulk;
    this.#add = add;
    this.#filter = filter;
  }

  upsert() {
    this.#upsert = true;
    return this;
  }

  #added(name, fields) {
    this.#add({ [name]: { filter: this.#filter, ...fields } });
    return this.#bulk;
  }

  update(change) {
    return this.#added("updateMany", { update: change, upsert: this.#upsert });
  }

  updateOne(change) {
    return this.#added("updateOne", { update: change, upsert: this.#upsert });
  }

  replaceOne(replacement) {
    return this.#added("replaceOne", { replacement, upsert: this.#upsert });
  }

  delete() {
    return this.#added("deleteMany", {});
  }

  deleteOne() {
    return this.#added("deleteOne", {});
  }
}

/** A bulk write whose operations are added one by one. */
class BulkOperation {
  #source;
  #execute;
  #operations = [];
  #isExecuted = false;

  constructor(source, execute) {
    this.#source = source;
    this.#execute = execute;
  }

  insert(document) {
    this.#operations.push({ insertOne: { document } });
    return this;
  }

  find(filter) {
    return new BulkFind(this, (operation) => this.#operations.push(operation), filter);
  }

  execute() {
    if (this.#isExecuted) {
      throw this.#source.toError(new CallError("execute: the bulk operation has already been executed"));
    }
    this.#isExecuted = true;
    return this.#execute(this.#operations);
  }
}

freezeClasses(BulkFind, BulkOperation);

module.exports = { BulkOperation, checkOperations };
