"use strict";

const bson = require("bson");
const { decode } = require("../lib/bson/decode.js");
const { encode } = require("../lib/bson/encode.js");
const { BSON } = require("..");

/** Returns a pseudo-random generator with a seed, which makes failures reproducible. */
function generator(seed) {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

function randomValue(next, depth) {
  const leaves = [
    () => next(2 ** 31) - 2 ** 30,
    () => (next(1000) + 1) / 7,
    () => "aé€😀".repeat(next(4)),
    () => "abcdefghijklmnop".slice(next(16)) + "é".repeat(next(2)),
    () => next(2) === 1,
    () => null,
    () => new Date(next(2 ** 31) * 1000 - 2 ** 40),
    () => bson.ObjectId.createFromTime(next(2 ** 31)),
    () => bson.Decimal128.fromString(`${next(10 ** 6)}E${next(20) - 10}`),
    () => bson.Long.fromBits(next(2 ** 31), next(2 ** 31)),
    () => new bson.Double(next(100)),
    () => new bson.Int32(next(100)),
    () => new bson.Timestamp({ t: next(2 ** 31), i: next(100) }),
    () => new bson.Binary(Buffer.from([next(256), next(256)]), [0, 2, 5, 128][next(4)]),
    () => new bson.UUID(),
    () => new bson.BSONRegExp("a.b", "im"),
    () => new bson.Code("f()", next(2) ? { a: 1 } : undefined),
    () => new bson.MinKey(),
    () => new bson.MaxKey(),
    () => Number.NaN,
    () => BigInt(next(2 ** 31)) * 2n ** 20n,
  ];
  const choice = next(leaves.length + (depth > 0 ? 6 : 0));
  if (choice < leaves.length) {
    return leaves[choice]();
  }
  if (choice % 2) {
    return Array.from({ length: next(4) }, () => randomValue(next, depth - 1));
  }
  return randomDocument(next, depth - 1);
}

/**
 * Names with a common prefix, with the same slot in the key cache ("Aa", "BB"), or too long for
 * it.
 */
const NAMES = [
  "_id",
  "k",
  "key",
  "keys",
  "é",
  "Aa",
  "BB",
  "AaBB",
  "BBAa",
  "x".repeat(63),
  "x".repeat(64),
  "y".repeat(200),
];

function randomDocument(next, depth) {
  const name = () => NAMES[next(2 * NAMES.length)] ?? `field${next(2000)}`;
  return Object.fromEntries(Array.from({ length: next(6) }, () => [name(), randomValue(next, depth)]));
}

test("encodes to the same bytes as the bson package", () => {
  const next = generator(20261122);
  for (let round = 0; round < 5000; round++) {
    const document = randomDocument(next, 4);
    const ours = Buffer.from(encode(document));
    const theirs = Buffer.from(bson.serialize(document, { ignoreUndefined: true }));
    if (!ours.equals(theirs)) {
      throw new Error(`round ${round}: ${bson.EJSON.stringify(document)}`);
    }
  }
});

test("decodes to the same values as the bson package", () => {
  const next = generator(22112026);
  for (let round = 0; round < 5000; round++) {
    const bytes = Buffer.from(bson.serialize(randomDocument(next, 4)));
    const ours = decode(bytes);
    // Decoded values must not share memory with the buffer.
    const copy = Buffer.from(bytes);
    bytes.fill(0xff);
    expect(ours).toStrictEqual(bson.deserialize(copy, { bsonRegExp: true }));
  }
  const odd = bson.serialize({
    ["__proto__"]: 1,
    "": { $ref: "c", $id: 1, x: 2 },
    s: new bson.BSONSymbol("s"),
    u: "ü".repeat(40),
    a: "x".repeat(100),
  });
  const read = decode(Buffer.from(odd));
  expect(Object.keys(read)).toEqual(["__proto__", "", "s", "u", "a"]);
  expect(Object.getPrototypeOf(read)).toBe(Object.prototype);
  expect(read[""]).toEqual(new bson.DBRef("c", 1, undefined, { x: 2 }));
  expect([read.s, read.u, read.a]).toEqual(["s", "ü".repeat(40), "x".repeat(100)]);
});

test("encodes whole numbers as integers, and undefined as a missing field or null", () => {
  const read = (document) => bson.deserialize(encode(document), { promoteValues: false });
  expect(read({ n: 2 ** 31 }).n).toEqual(bson.Long.fromNumber(2 ** 31));
  expect(read({ n: -(2 ** 53) }).n).toEqual(bson.Long.fromNumber(-(2 ** 53)));
  for (const whole of [2 ** 31, -(2 ** 31) - 1, 2 ** 32, -(2 ** 32), 2 ** 62 + 2 ** 40, -(2 ** 63)]) {
    expect(read({ n: whole }).n).toEqual(bson.Long.fromBigInt(BigInt(whole)));
    if (Math.abs(whole) < 2 ** 52) {
      expect(read({ at: new Date(whole) }).at).toEqual(new Date(whole));
    }
  }
  expect(read({ n: 2 ** 63 }).n).toEqual(new bson.Double(2 ** 63));
  expect(read({ n: -0 }).n.value).toBe(-0);
  expect(read({ n: 1 }).n).toEqual(new bson.Int32(1));
  expect(Object.keys(read({ a: undefined, f() {}, [Symbol("s")]: 1, b: 1 }))).toEqual(["b"]);
  expect(bson.deserialize(encode({ a: [undefined, () => {}, 1] })).a).toEqual([null, null, 1]);
  expect(bson.deserialize(encode({ m: new Map([["a", 1]]), n: new Number(5), b: { toBSON: () => "x" } }))).toEqual({
    m: { a: 1 },
    n: 5,
    b: "x",
  });
  expect(bson.deserialize(encode({ r: /a/gi }), { bsonRegExp: true }).r).toEqual(new bson.BSONRegExp("a", "i"));
  const reused = Buffer.from(encode({ text: "x".repeat(100_000) }));
  encode({ other: 1 });
  expect(bson.deserialize(reused).text).toHaveLength(100_000);
});

test.each(["bson4", "bson5", "bson6", "bson"])("accepts values of %s", (version) => {
  const other = require(version);
  const document = {
    id: new other.ObjectId("63c1b2a1f0e1d2c3b4a59687"),
    decimal: other.Decimal128.fromString("1.50"),
    long: other.Long.fromString("9007199254740993"),
    int: new other.Int32(7),
    double: new other.Double(2),
    timestamp: new other.Timestamp({ t: 1, i: 2 }),
    binary: new other.Binary(Buffer.from("abc"), 5),
    uuid: new other.UUID("2f1b0c5e-8f6d-4c0a-9a53-3f1d2e4b5a69"),
    regex: new other.BSONRegExp("a", "i"),
    symbol: new other.BSONSymbol("s"),
    code: new other.Code("f()"),
    reference: new other.DBRef("c", new other.ObjectId("63c1b2a1f0e1d2c3b4a59687"), "d"),
    min: new other.MinKey(),
    max: new other.MaxKey(),
  };
  expect(Buffer.from(encode(document)).toString("hex")).toBe(Buffer.from(other.serialize(document)).toString("hex"));
});

test("BSON classes work with and without new, and with instanceof", () => {
  const hex = "63c1b2a1f0e1d2c3b4a59687";
  for (const id of [
    BSON.ObjectId(hex),
    new BSON.ObjectId(hex),
    BSON.ObjectID(hex),
    new BSON.ObjectID(hex),
    new bson.ObjectId(hex),
  ]) {
    expect(id).toBeInstanceOf(BSON.ObjectId);
    expect(id).toBeInstanceOf(bson.ObjectId);
    expect(id.toHexString()).toBe(hex);
  }
  expect(BSON.Long.fromNumber(5)).toBeInstanceOf(BSON.Long);
  expect(BSON.EJSON.parse('{"$oid":"63c1b2a1f0e1d2c3b4a59687"}')).toBeInstanceOf(BSON.ObjectId);
  class Id extends BSON.ObjectId {}
  expect(new Id(hex)).toBeInstanceOf(Id);
});
