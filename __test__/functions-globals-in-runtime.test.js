"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { Binary, Decimal128, Long, MaxKey, MinKey, ObjectId } = require("bson");
const { runFunction, withCollection } = require("./functions/run.js");

const ID = "6500000000000000000000aa";

// The modules of the globals are written at the same time as the runtime.
const hasGlobals = fs.existsSync(path.join(__dirname, "..", "lib", "functions", "globals", "bson.js"));
const describeIfPresent = hasGlobals ? describe : describe.skip;

describeIfPresent("globals of BSON", () => {
  test.each([
    ["BSON.ObjectId without `new`", `BSON.ObjectId("${ID}").toString()`, ID],
    ["BSON.ObjectId with `new`", `new BSON.ObjectId("${ID}") instanceof BSON.ObjectId`, true],
    ["EJSON.parse", 'EJSON.parse(\'{"a":{"$numberInt":"1"}}\') instanceof Object', true],
    ["EJSON.stringify", "EJSON.stringify({ a: 1 })", '{"a":{"$numberInt":"1"}}'],
    [
      "utils.crypto.hash",
      "utils.crypto.hash('sha256', 'hello!').toBase64()",
      "zgYJL7lI2f+sfRo3bkBLJrdXW8wR7gWkYV/vT+w6MIs=",
    ],
    ["utils.jwt", "utils.jwt.decode(utils.jwt.encode('HS256', { a: 1 }, 'key'), 'key').a", 1],
    ["the text of a Binary", "BSON.Binary.fromText('hello').text()", "hello"],
  ])("have %s", async (_name, expression, expected) => {
    expect((await runFunction(`exports = () => ${expression};`)).value).toEqual(expected);
  });

  test("cannot be changed", async () => {
    const source =
      "exports = () => { BSON.leaked = 1; EJSON.leaked = 1; utils.leaked = 1; return [BSON.leaked, EJSON.leaked, utils.leaked]; }";
    expect((await runFunction(source)).value).toEqual([undefined, undefined, undefined]);
  });

  test("have errors that are instances of Error", async () => {
    const source =
      "exports = () => { try { utils.crypto.hash('lost', 'a'); } catch (e) { return [e instanceof Error, e.name]; } }";
    expect((await runFunction(source)).value).toEqual([true, "FunctionError"]);
  });
});

describeIfPresent("values of BSON", () => {
  const values = [new ObjectId(ID), new Decimal128("1.5"), new Long(1, 2), new MinKey(), new MaxKey(), new Binary([1])];

  test.each(values.map((value) => [value._bsontype, value]))("return a %s as it came", async (_name, value) => {
    expect((await runFunction("exports = (value) => value", [value])).value).toBe(value);
  });

  test("have the methods of a Binary that an argument contains", async () => {
    const body = new Binary(Buffer.from("hello"));
    expect((await runFunction("exports = ({ body }) => body.text()", [{ body }])).value).toBe("hello");
  });

  test("can be the classes MinKey and MaxKey", async () => {
    const source = withCollection(
      "await collection.findOne({ a: { $gt: BSON.MinKey } }); return { most: BSON.MaxKey };",
    );
    const { value, calls } = await runFunction(source, [], { backend: recorder() });
    expect(calls[0].query.a.$gt).toBeInstanceOf(MinKey);
    expect(value.most).toBeInstanceOf(MaxKey);
  });
});

/** A backend that only records the arguments of its calls. */
function recorder() {
  const calls = [];
  return { calls, call: (_id, _isSystem, _service, _name, args) => calls.push(args) && null };
}
