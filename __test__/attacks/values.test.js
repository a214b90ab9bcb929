"use strict";

// Values that an application passes on from untrusted input stay values, and never change the
// structure of the document around them.

const querystring = require("node:querystring");
const vm = require("node:vm");
const bson = require("bson");
const { encode } = require("../../lib/bson/encode.js");
const { BSON } = require("../..");
const { logInNew, openApp, openDefinition } = require("../helpers.js");

const read = (value) => bson.deserialize(encode(value), { bsonRegExp: true, promoteValues: false });

/** JSON texts of values that claim to be of a BSON class. */
const DISGUISED = [
  { _bsontype: "Decimal128", bytes: [...Array(16).fill(0), 0x02, 0x72, 0, 2, 0, 0, 0, 0x61, 0] },
  { _bsontype: "Decimal128", bytes: { length: 300_000_000 } },
  { _bsontype: "ObjectId", id: { length: 12 } },
  { _bsontype: "ObjectID", id: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] },
  { _bsontype: "Binary", buffer: [1, 2], position: 2, sub_type: 0 },
  { _bsontype: "BSONRegExp", pattern: ".*", options: "" },
  { _bsontype: "BSONSymbol", value: "s" },
  { _bsontype: "Code", code: "f()", scope: { a: 1 } },
  { _bsontype: "DBRef", collection: "c", oid: 1, fields: { $ref: "other" } },
  { _bsontype: "Long", low: 1, high: 2 },
  { _bsontype: "Timestamp", low: 1, high: 2 },
  { _bsontype: "Int32", value: 1 },
  { _bsontype: "Double", value: 1 },
  { _bsontype: "UUID", buffer: "x" },
  { _bsontype: "MinKey" },
  { _bsontype: "MaxKey" },
  { _bsontype: "Unknown" },
  { _bsontype: 1 },
  { _bsontype: null },
].map((value) => JSON.stringify(value));

describe("a JSON value with _bsontype", () => {
  test.each(DISGUISED)("is stored as a document: %s", (json) => {
    const value = JSON.parse(json);
    const written = Buffer.from(encode({ before: 1, value, after: 2 }));
    expect(Object.keys(bson.deserialize(written))).toEqual(["before", "value", "after"]);
    expect(JSON.stringify(bson.deserialize(written).value)).toBe(json);
  });

  test.each(DISGUISED)("is stored as a document if it has no prototype: %s", (json) => {
    const value = Object.assign(Object.create(null), JSON.parse(json));
    expect(JSON.stringify(bson.deserialize(encode({ value })).value)).toBe(json);
  });

  test.each(DISGUISED)("is stored as a document if another realm parsed it: %s", (json) => {
    const value = vm.runInNewContext("JSON.parse(json)", { json });
    expect(Object.getPrototypeOf(value)).not.toBe(Object.prototype);
    expect(JSON.stringify(bson.deserialize(encode({ value })).value)).toBe(json);
  });

  const texts = DISGUISED.filter((json) => typeof JSON.parse(json)._bsontype === "string");

  test.each(texts)("is rejected in an object of the application's class: %s", (json) => {
    class Payload {}
    const value = Object.assign(new Payload(), JSON.parse(json));
    expect(() => encode({ document: { list: [{ value }] } })).toThrow("the value at 'list.0.value' is of a class");
  });

  test.each(texts)("is rejected as a prototype: %s", (json) => {
    const value = Object.assign({}, JSON.parse(`{"__proto__":${json}}`));
    expect(typeof value._bsontype).toBe("string");
    expect(() => encode({ value })).toThrow(TypeError);
  });

  test("is stored as a document from a query string", () => {
    const value = querystring.parse("_bsontype=BSONRegExp&pattern=.*&options=");
    expect(read({ value }).value).toEqual({ _bsontype: "BSONRegExp", pattern: ".*", options: "" });
  });

  test("writes no other field, and as a filter matches only an equal value", async () => {
    const user = await logInNew(await openApp({ definition: openDefinition() }));
    const plants = user.mongoClient("mongodb-atlas").db("attacks").collection("values");
    for (const json of DISGUISED.filter((text) => !text.includes("$ref"))) {
      const value = JSON.parse(json);
      await plants.insertOne({ _id: 1, value, role: "user" });
      await plants.updateOne({ _id: 1 }, { $set: { again: value, role: "user" } });
      const found = await plants.findOne({ _id: 1 });
      expect(Object.keys(found).sort()).toEqual(["_id", "again", "role", "value"]);
      expect([found.role, JSON.stringify(found.value), JSON.stringify(found.again)]).toEqual(["user", json, json]);
      expect(await plants.count({ role: value })).toBe(0);
      expect(await plants.count({ value })).toBe(1);
      await plants.deleteOne({ _id: 1 });
    }
  });
});

describe("objects of the bson package's classes", () => {
  test("may be plain objects with bson's symbol", () => {
    const value = { _bsontype: "MinKey", [Symbol.for("@@mdb.bson.version")]: 6 };
    expect(read({ value }).value).toEqual(new bson.MinKey());
  });

  /** Returns an object of a class with some of its properties replaced. */
  const like = (original, properties) =>
    Object.create(
      original,
      Object.fromEntries(Object.entries(properties).map(([name, value]) => [name, { value, enumerable: true }])),
    );
  const id = new bson.ObjectId();
  const decimal = bson.Decimal128.fromString("1");
  const binary = new bson.Binary(Buffer.from("abc"));
  const long = new bson.Long(1, 2);
  const timestamp = new bson.Timestamp({ t: 1, i: 2 });
  const regex = new bson.BSONRegExp("a", "i");
  const code = new bson.Code("f()");
  const reference = new bson.DBRef("c", 1);
  const lying = Object.defineProperty(Buffer.alloc(16), "length", { value: 3 });
  const long13 = Object.defineProperty(Buffer.alloc(13), "length", { value: 12 });

  const malformed = {
    "an ObjectId without bytes": like(id, { id: "x", toHexString: undefined }),
    "an ObjectId with too many bytes": like(id, { id: long13, toHexString: () => "00" }),
    "an ObjectId with other digits": like(id, { id: null, toHexString: () => "g".repeat(24) }),
    "an ObjectId with too many digits": like(id, { id: null, toHexString: () => "0".repeat(26) }),
    "an ObjectId with an object as digits": like(id, { id: null, toHexString: () => ({ length: 24 }) }),
    "a Decimal128 with a list of bytes": like(decimal, { bytes: Array(16).fill(0) }),
    "a Decimal128 with too few bytes": like(decimal, { bytes: Buffer.alloc(15) }),
    "a Decimal128 with too many bytes": like(decimal, { bytes: Buffer.alloc(40) }),
    "a Decimal128 with floats": like(decimal, { bytes: new Float32Array(4) }),
    "a Decimal128 with a length": like(decimal, { bytes: { length: 300_000_000 } }),
    "a Long without a half": like(long, { high: undefined }),
    "a Long with a text": like(long, { low: "1" }),
    "a Long with a fraction": like(long, { low: 1.5 }),
    "a Long with a number that is too large": like(long, { low: 2 ** 32 }),
    "a Timestamp with an object": like(timestamp, { low: { valueOf: () => 1 } }),
    "an Int32 with a text": like(new bson.Int32(1), { valueOf: () => "1" }),
    "an Int32 with a fraction": like(new bson.Int32(1), { value: 1.5 }),
    "a Double with an object": like(new bson.Double(1), { valueOf: () => ({}) }),
    "a UUID with other digits": like(id, { _bsontype: "UUID", toHexString: () => "z".repeat(32) }),
    "a UUID with a number": like(id, { _bsontype: "UUID", toHexString: () => 16 }),
    "a Binary with a list of bytes": like(binary, { buffer: [1, 2, 3] }),
    "a Binary with a length": like(binary, { buffer: { length: 3, subarray: () => [1, 2, 3] } }),
    "a Binary with another array": like(binary, { buffer: new Uint16Array(3) }),
    "a Binary whose position is beyond it": like(binary, { position: 4 }),
    "a Binary whose position is negative": like(binary, { position: -1 }),
    "a Binary whose position is a fraction": like(binary, { position: 1.5 }),
    "a Binary whose position is a text": like(binary, { position: "3" }),
    "a Binary whose subtype is not a byte": like(binary, { sub_type: 256 }),
    "a Binary whose subtype is a text": like(binary, { sub_type: "0" }),
    "a BSONRegExp with an object as its pattern": like(regex, { pattern: { includes: () => false, length: 3 } }),
    "a BSONRegExp with a list of options": like(regex, { options: ["i"] }),
    "a BSONRegExp with the options zq": like(regex, { options: "zq" }),
    "a BSONRegExp with the option l": like(regex, { options: "l" }),
    "a BSONSymbol with an object": like(new bson.BSONSymbol("s"), { valueOf: () => ({ length: 3 }) }),
    "a Code with an object": like(code, { code: {} }),
    "a Code with a text as its scope": like(code, { scope: "abc" }),
    "a DBRef without a collection": like(reference, { collection: undefined }),
    "a DBRef without an identifier": like(reference, { oid: undefined }),
    "a DBRef with a number as its database": like(reference, { db: 1 }),
    "a DBRef with texts as its fields": like(reference, { fields: "abc" }),
    "a DBRef whose fields have $ref": new bson.DBRef("c", 1, undefined, { $ref: "other" }),
    "a DBRef whose fields have $id": new bson.DBRef("c", 1, undefined, { $id: 2 }),
    "a DBRef whose fields have $db": new bson.DBRef("c", 1, undefined, JSON.parse('{"$db":"other"}')),
    "an unknown class": like(id, { _bsontype: "Unknown" }),
  };

  test.each(Object.entries(malformed))("are rejected with the path of the field: %s", (_name, value) => {
    expect(() => encode({ document: { list: [{ value }] } })).toThrow(TypeError);
    expect(() => encode({ document: { list: [{ value }] } })).toThrow(/at 'list\.0\.value' /);
  });

  test("are encoded from the contents of their typed arrays, not from overridden properties", () => {
    expect(read({ value: like(decimal, { bytes: lying }), after: 1 }).value.bytes).toEqual(Buffer.alloc(16));
    const typed = Object.defineProperties(Buffer.from("abc"), {
      length: { value: 300_000_000 },
      byteLength: { value: 1 },
      byteOffset: { value: 1 },
      buffer: { value: 300_000_000 },
    });
    expect(read({ value: like(binary, { buffer: typed }), after: 1 }).value.toString()).toBe("abc");
    expect(read({ value: typed, after: 1 }).value.toString()).toBe("abc");
    const view = Object.defineProperty(new DataView(Uint8Array.of(1, 2).buffer, 1), "byteLength", { value: 9 });
    expect([...read({ value: view }).value.buffer]).toEqual([2]);
  });

  test("have their _bsontype read once", () => {
    let count = 0;
    const types = ["MinKey", "Decimal128"];
    const value = Object.create(bson.MinKey.prototype, { _bsontype: { get: () => types[count++] } });
    expect(read({ value }).value).toEqual(new bson.MinKey());
    expect(count).toBe(1);
  });

  test("have the options of regular expressions sorted and without duplicates", () => {
    expect(read({ value: like(regex, { options: "xuxsmi" }) }).value.options).toBe("imsux");
    const native = Object.defineProperties(/a/gimsuy, { flags: { value: "zq" }, source: { value: "b" } });
    expect(read({ native }).native).toEqual(new bson.BSONRegExp("a", "imsu"));
  });

  test("have the value of a boxed primitive or a date, even if its methods are overridden", () => {
    const boxed = Object.assign(Object(5), { valueOf: () => boxed });
    const date = Object.assign(new Date(7), { getTime: () => "x" });
    expect(bson.deserialize(encode({ boxed, date, text: Object("t") }))).toEqual({
      boxed: 5,
      date: new Date(7),
      text: "t",
    });
  });

  test("may have a function as code, as in older versions of bson", () => {
    const source = "function f() { return 1; }";
    const f = vm.runInThisContext(`(${source})`);
    expect(read({ value: like(code, { code: f }) }).value.code).toBe(source);
  });
});

describe("toBSON", () => {
  test("is called once", () => {
    const value = {
      a: 1,
      toBSON() {
        return this;
      },
    };
    expect(bson.deserialize(encode({ value }))).toEqual({ value: { a: 1 } });
  });

  test("may return a JSON value, which is encoded as a document", () => {
    const value = { toBSON: () => JSON.parse(DISGUISED[0]) };
    expect(JSON.stringify(bson.deserialize(encode({ value })).value)).toBe(DISGUISED[0]);
  });
});

describe("the name of a field", () => {
  test("cannot appear twice in a Map", () => {
    const map = new Map([
      [1, "first"],
      ["1", "last"],
    ]);
    expect(() => encode({ document: { map } })).toThrow("the name at 'map.1' is used twice in one Map");
  });

  test("cannot contain lone surrogates, which would become equal in UTF-8", () => {
    const document = JSON.parse('{"\\ud800":1,"\\udbff":2}');
    expect(Object.keys(document)).toHaveLength(2);
    expect(() => encode({ document })).toThrow("must not contain lone surrogates");
    expect(read({ "😀": "\ud800" })).toEqual({ "😀": "\ufffd" });
  });

  test("is truncated to 200 characters in errors", () => {
    expect(() => encode({ a: { ["x".repeat(10_000)]: new Date(Number.NaN) } })).toThrow(
      `the date at '${"x".repeat(200)}…' is invalid`,
    );
  });
});

test("an object of a BSON class is encoded as exactly one element or rejected", () => {
  const odd = [
    undefined,
    null,
    true,
    -1,
    0,
    1.5,
    2 ** 40,
    Number.NaN,
    "",
    "0",
    "00".repeat(12),
    "zz",
    [],
    [1, 2],
    Array(16).fill(0),
    {},
    { length: 5 },
    { length: 16, 0: 1 },
    Buffer.alloc(3),
    Buffer.alloc(12),
    Buffer.alloc(16),
    Buffer.alloc(40),
    new Float64Array(2),
    new ArrayBuffer(16),
    () => "0".repeat(24),
    () => "0".repeat(32),
    () => 7,
    () => ({}),
    () => undefined,
  ];
  const classes = {
    ObjectId: ["id", "toHexString"],
    Decimal128: ["bytes"],
    Long: ["low", "high"],
    Timestamp: ["low", "high"],
    Int32: ["valueOf"],
    Double: ["valueOf"],
    UUID: ["toHexString"],
    Binary: ["buffer", "position", "sub_type"],
    BSONRegExp: ["pattern", "options"],
    BSONSymbol: ["valueOf"],
    Code: ["code", "scope"],
    DBRef: ["collection", "oid", "db"],
  };
  let written = 0;
  for (const [type, names] of Object.entries(classes)) {
    for (let round = 0; round < odd.length ** names.length; round++) {
      const value = Object.create(bson.MinKey.prototype, { _bsontype: { value: type } });
      names.forEach((name, index) => {
        const choice = Math.floor(round / odd.length ** index) % odd.length;
        Object.defineProperty(value, name, { value: odd[choice] });
      });
      let bytes;
      try {
        bytes = encode({ before: 1, value, after: { end: 2 } });
      } catch (error) {
        if (!(error instanceof TypeError)) {
          throw error;
        }
        continue;
      }
      written += 1;
      const read = bson.deserialize(Buffer.from(bytes), { bsonRegExp: true });
      if (Object.keys(read).join() !== "before,value,after" || read.before !== 1 || read.after.end !== 2) {
        throw new Error(`${type} wrote something else in round ${round}`);
      }
    }
  }
  expect(written).toBeGreaterThan(50);
});

test("objects of this library's BSON classes can be stored", () => {
  const value = { id: new BSON.ObjectId(), when: new BSON.Timestamp({ t: 2 ** 32 - 1, i: 2 ** 31 }) };
  expect(read({ value }).value).toEqual(value);
});
