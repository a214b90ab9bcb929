"use strict";

// Other programs may have stored unusual BSON. No stored value makes a document unreadable or
// exposes other memory.

const bson = require("bson");
const { decode, encode } = require("../../lib/bson/index.js");

const int32 = (value) => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
};
const cstring = (value) => Buffer.concat([Buffer.from(value), Buffer.of(0)]);
const text = (value) => Buffer.concat([int32(Buffer.byteLength(value) + 1), cstring(value)]);
const element = (type, name, ...contents) => Buffer.concat([Buffer.of(type), cstring(name), ...contents]);
const document = (...elements) => {
  const contents = Buffer.concat(elements);
  return Buffer.concat([int32(contents.length + 5), contents, Buffer.of(0)]);
};

/**
 * Decodes a value between two others, in a document within an array, as in the result of a query.
 */
function readValue(type, ...contents) {
  const odd = document(element(0x10, "before", int32(1)), element(type, "odd", ...contents), element(0x0a, "after"));
  const answer = document(element(0x04, "v", document(element(0x03, "0", odd), element(0x10, "1", int32(7)))));
  const [read, next] = decode(answer).v;
  expect(Object.keys(read)).toEqual(["before", "odd", "after"]);
  expect([read.before, read.after, next]).toEqual([1, null, 7]);
  return read.odd;
}

describe("a regular expression", () => {
  test.each(["zq", "l", "é", "gi", "mi", "i i", "iiiiiiii", ""])("with the options '%s' is read", (options) => {
    const regex = readValue(0x0b, cstring("a.b"), cstring(options));
    expect(regex).toBeInstanceOf(bson.BSONRegExp);
    expect(regex.pattern).toBe("a.b");
    expect([...regex.options].sort()).toEqual([...options].sort());
    expect(Object.keys(regex)).toEqual(["pattern", "options"]);
    expect(bson.EJSON.stringify(regex, { relaxed: false })).toContain("$regularExpression");
  });

  test("with unknown options cannot be encoded", () => {
    const odd = readValue(0x0b, cstring("a"), cstring("zq"));
    expect(() => encode({ document: { odd } })).toThrow(
      "the BSONRegExp at 'odd' must have no options other than 'imsux'",
    );
  });
});

describe("binary data of the old subtype 2", () => {
  const binary = (size, ...contents) => readValue(0x05, int32(size), Buffer.of(2), ...contents);

  test("contains the bytes after its inner length", () => {
    expect(binary(7, int32(3), Buffer.from("abc"))).toEqual(new bson.Binary(Buffer.from("abc"), 2));
  });

  test.each([0x7fffffff, 300_000_000, 100, 4, 2, 0, -1, -0x80000000])(
    "with the wrong inner length %d contains only its own bytes",
    (inner) => {
      const whole = Buffer.concat([int32(inner), Buffer.from("abc")]);
      expect(binary(7, whole)).toEqual(new bson.Binary(whole, 2));
    },
  );

  test.each([0, 1, 2, 3])("of %d bytes has no inner length", (size) => {
    expect(binary(size, Buffer.alloc(size, 1))).toEqual(new bson.Binary(Buffer.alloc(size, 1), 2));
  });

  test("survives a round trip", () => {
    const odd = binary(7, int32(300), Buffer.from("abc"));
    expect(decode(encode({ odd })).odd).toEqual(odd);
  });
});

describe("binary data of the UUID subtype", () => {
  test.each([0, 1, 15, 17, 40])("of %d bytes is a Binary", (size) => {
    const bytes = Buffer.alloc(size, 1);
    expect(readValue(0x05, int32(size), Buffer.of(4), bytes)).toEqual(new bson.Binary(bytes, 4));
  });

  test("of 16 bytes is a UUID", () => {
    expect(readValue(0x05, int32(16), Buffer.of(4), Buffer.alloc(16, 1))).toBeInstanceOf(bson.UUID);
  });
});

describe("a document with $ref and $id", () => {
  const reference = (...others) => readValue(0x03, document(element(0x02, "$ref", text("c")), ...others));
  const id = element(0x10, "$id", int32(1));

  test("is a DBRef whatever its other fields are", () => {
    expect(reference(id)).toEqual(new bson.DBRef("c", 1));
    expect(reference(id, element(0x0a, "$ref2"), element(0x02, "__proto__", text("p")))).toBeInstanceOf(bson.DBRef);
    expect(reference(element(0x03, "$id", document()))).toEqual(new bson.DBRef("c", {}));
    expect(reference(id, element(0x0b, "x", cstring("a"), cstring("zq"))).fields.x.options).toBe("zq");
  });

  test.each([
    ["no name", readValue, [element(0x10, "$ref", int32(1)), id]],
    ["null as $id", readValue, [element(0x02, "$ref", text("c")), element(0x0a, "$id")]],
    ["a number as $db", readValue, [element(0x02, "$ref", text("c")), id, element(0x10, "$db", int32(1))]],
    ["null as $db", readValue, [element(0x02, "$ref", text("c")), id, element(0x0a, "$db")]],
    ["undefined as $db", readValue, [element(0x02, "$ref", text("c")), id, element(0x06, "$db")]],
  ])("is a document if it has %s, as in the bson package", (_name, read, elements) => {
    const bytes = document(...elements);
    const value = read(0x03, bytes);
    expect(value).not.toBeInstanceOf(bson.DBRef);
    expect(value).toEqual(bson.deserialize(document(element(0x03, "a", bytes))).a);
    expect(() => encode({ value })).not.toThrow();
  });
});

test("decodes dates, timestamps, decimals and code with any bits", () => {
  const bits = [Buffer.alloc(8, 0xff), Buffer.alloc(8, 0x7f), Buffer.from("0000000000000080", "hex")];
  for (const eight of bits) {
    expect(readValue(0x09, eight)).toBeInstanceOf(Date);
    expect(readValue(0x11, eight)).toBeInstanceOf(bson.Timestamp);
    expect(["number", "object"]).toContain(typeof readValue(0x12, eight));
    expect(readValue(0x13, eight, eight).toString()).toEqual(expect.any(String));
    expect(typeof readValue(0x01, eight)).toBe("number");
  }
  expect(readValue(0x09, bits[1]).getTime()).toBeNaN();
  const scope = document(element(0x0b, "r", cstring("a"), cstring("zq")));
  const code = Buffer.concat([text("f()"), scope]);
  expect(readValue(0x0f, int32(code.length + 4), code).scope.r.options).toBe("zq");
  expect(readValue(0x0c, text("a.b.c"), Buffer.alloc(12)).collection).toBe("a.b.c");
  expect(readValue(0x0e, text("s"))).toBe("s");
  expect(readValue(0x08, Buffer.of(7))).toBe(false);
});

test("decodes strings and names that are not valid UTF-8", () => {
  const bad = Buffer.of(0x61, 0xff, 0xc0, 0x80, 0xed, 0xa0, 0x80, 0x62);
  const value = Buffer.concat([int32(bad.length + 1), bad, Buffer.of(0)]);
  expect(readValue(0x02, value)).toMatch(/^a\ufffd+b$/);
  expect(readValue(0x0d, value).code).toMatch(/^a\ufffd+b$/);
  expect(readValue(0x0b, bad, Buffer.of(0), bad, Buffer.of(0)).pattern).toMatch(/^a\ufffd+b$/);
  const named = document(Buffer.concat([Buffer.of(0x10), bad, Buffer.of(0), int32(1)]));
  expect(Object.values(decode(named))).toEqual([1]);
});

describe("invalid documents", () => {
  const good = Buffer.from(
    bson.serialize({
      text: "abc",
      list: [1, "x", { deep: true }],
      binary: new bson.Binary(Buffer.alloc(30), 2),
      regex: new bson.BSONRegExp("a", "i"),
      code: new bson.Code("f()", { a: 1 }),
      id: new bson.ObjectId(),
    }),
  );

  test("decode to an error or a document, and never loop or read other memory", () => {
    for (let index = 4; index < good.length; index++) {
      for (const byte of [0x00, 0x01, 0x02, 0x05, 0x7f, 0x80, 0xff]) {
        const bytes = Buffer.from(good);
        bytes[index] = byte;
        try {
          expect(JSON.stringify(decode(bytes)).length).toBeLessThan(5000);
        } catch (error) {
          expect(error.message).toMatch(
            /no BSON type|not within its document|does not end|out of range|outside buffer bounds/,
          );
        }
      }
    }
  });

  test.each([5, 10, 20, 40, 60, 80])("are an error if they end after %d bytes", (size) => {
    expect(() => decode(Buffer.from(good.subarray(0, size)))).toThrow();
  });

  test("do not affect the next document", () => {
    expect(() => decode(Buffer.from(good.subarray(0, 60)))).toThrow();
    expect(decode(Buffer.from(good))).toEqual(bson.deserialize(good, { bsonRegExp: true }));
  });
});
