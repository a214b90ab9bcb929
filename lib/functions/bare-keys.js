"use strict";

// Functions write `BSON.MinKey` and `BSON.MaxKey` as values, without calling them. An encoder
// would omit the fields, because the values are classes.

/** Returns true for the class `MinKey` or `MaxKey`. */
const isBareKey = (value) =>
  typeof value === "function" && (value._bsontype === "MinKey" || value._bsontype === "MaxKey");

/** Returns a value in which the classes `MinKey` and `MaxKey` are replaced with their values. */
function withKeys(value) {
  if (isBareKey(value)) {
    return new (require("bson")[value._bsontype])();
  }
  if (Array.isArray(value)) {
    return value.map(withKeys);
  }
  const isDocument = Object.prototype.toString.call(value) === "[object Object]" && value._bsontype === undefined;
  if (!isDocument) {
    return value;
  }
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, withKeys(field)]));
}

module.exports = { withKeys };
