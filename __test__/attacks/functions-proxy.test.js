"use strict";

// Properties that the language, Node and test tools read from every object are not functions of
// the app.

const util = require("node:util");
const { EJSON } = require("bson");
const { encode } = require("../../lib/bson/encode.js");
const { logInNew, openApp } = require("../helpers.js");

/**
 * Logs in a user whose function calls are recorded, and reject as if the function did not exist.
 */
async function countedUser() {
  const user = await logInNew(await openApp());
  const called = [];
  user.callFunction = async (name) => {
    called.push(name);
    throw new Error(`function not found: '${name}'`);
  };
  return { user, called };
}

const PROBED = [
  ...Object.getOwnPropertyNames(Object.prototype),
  "$$typeof",
  "@@__IMMUTABLE_ITERABLE__@@",
  "@@__IMMUTABLE_RECORD__@@",
  "_bsontype",
  "asymmetricMatch",
  "hasAttribute",
  "inspect",
  "nodeType",
  "tagName",
  "then",
  "toBSON",
  "toJSON",
  "",
  "a b",
];

test.each(PROBED)("%s has the same value as in a plain object", async (name) => {
  const { user } = await countedUser();
  expect(user.functions[name] === {}[name] || name === "__proto__").toBe(true);
});

test("symbols have the same value as in a plain object", async () => {
  const { user } = await countedUser();
  for (const symbol of [Symbol.toPrimitive, Symbol.iterator, Symbol.asyncIterator, util.inspect.custom]) {
    expect(user.functions[symbol]).toBeUndefined();
  }
});

test("other names are functions of the app; callFunction accepts every name", async () => {
  const { user, called } = await countedUser();
  for (const name of ["sum", "sum_2", "sum-2", "utils/sum", "größe", "inspector"]) {
    await expect(user.functions[name](1)).rejects.toThrow(`function not found: '${name}'`);
  }
  await expect(user.callFunction("toString")).rejects.toThrow("function not found: 'toString'");
  expect(called).toEqual(["sum", "sum_2", "sum-2", "utils/sum", "größe", "inspector", "toString"]);
});

test("user.functions behaves as an empty object when used as a value, and calls nothing", async () => {
  const rejections = [];
  const note = (reason) => rejections.push(reason);
  process.on("unhandledRejection", note);
  try {
    const { user, called } = await countedUser();
    const { functions } = user;
    expect(JSON.stringify(functions)).toBe("{}");
    expect(JSON.stringify({ functions })).toBe('{"functions":{}}');
    expect(EJSON.stringify({ functions })).toBe('{"functions":{}}');
    expect(`${functions}`).toBe("[object Object]");
    expect("".concat(functions)).toBe("[object Object]");
    expect(+functions).toBeNaN();
    expect(functions > 1).toBe(false);
    expect(Object.prototype.toString.call(functions)).toBe("[object Object]");
    expect(util.inspect(functions)).toBe("{}");
    expect(util.format("%s %d %j %o %O", functions, functions, functions, functions, functions)).toContain("{}");
    expect(Object.keys(functions)).toEqual([]);
    expect({ ...functions }).toEqual({});
    expect("sum" in functions).toBe(false);
    expect(functions instanceof Object).toBe(true);
    expect(Object.hasOwn(functions, "sum") || Object.hasOwn(functions, "sum")).toBe(false);
    expect(await functions).toBe(functions);
    expect(await Promise.all([functions])).toEqual([functions]);
    expect(new Error(functions).message).toBe("[object Object]");
    expect(Buffer.from(encode({ functions }))).toEqual(Buffer.from(encode({ functions: {} })));
    expect(functions).toEqual({});
    expect(functions).toStrictEqual({});
    expect([functions]).not.toEqual([1]);
    expect(() => expect(functions).toEqual({ a: 1 })).toThrow("- Expected");
    expect(() => expect(functions).toBe(1)).toThrow("Received");
    expect(() => expect(functions).toMatchObject({ a: 1 })).toThrow("Received");
    expect(util.isDeepStrictEqual(functions, {})).toBe(true);
    expect(called).toEqual([]);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(rejections).toEqual([]);
  } finally {
    process.off("unhandledRejection", note);
  }
});
