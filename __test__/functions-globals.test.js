"use strict";

const nodeCrypto = require("node:crypto");
const vm = require("node:vm");
const bson = require("bson");
const { decode } = require("../lib/bson/decode.js");
const { encode } = require("../lib/bson/encode.js");
const { bareKey, makeBson } = require("../lib/functions/globals/bson.js");
const { crypto } = require("../lib/functions/globals/crypto.js");
const { makeEjson } = require("../lib/functions/globals/ejson.js");
const { toPlainJson } = require("../lib/functions/globals/extended.js");
const { jwt } = require("../lib/functions/globals/jwt.js");

const BSON = makeBson();
const EJSON = makeEjson(BSON);
const HEX = "0123456789abcdef01234567";

const stored = (value) => decode(Buffer.from(encode({ value }))).value;

describe("BSON", () => {
  test.each(["ObjectId", "ObjectID"])("creates an %s with and without new", (name) => {
    expect(BSON[name](HEX).toString()).toBe(HEX);
    expect(new BSON[name](HEX).toHexString()).toBe(HEX);
    expect(JSON.stringify({ id: BSON[name](HEX) })).toBe(`{"id":"${HEX}"}`);
    expect(BSON[name]().toString()).not.toBe(BSON[name]().toString());
    expect(BSON[name](HEX) instanceof bson.ObjectId).toBe(true);
    expect(() => BSON[name]("not an id")).toThrow();
  });

  test("recognises values of the package with instanceof", () => {
    for (const [name, value] of [
      ["ObjectId", stored(new bson.ObjectId())],
      ["ObjectID", stored(new bson.ObjectId())],
      ["Binary", stored(new bson.Binary(Buffer.from("a")))],
      ["Long", stored(bson.Long.MAX_VALUE)],
      ["Decimal128", stored(bson.Decimal128.fromString("1.5"))],
    ]) {
      expect(value instanceof BSON[name]).toBe(true);
      expect({} instanceof BSON[name]).toBe(false);
    }
  });

  test.each([
    ["ObjectId", [HEX]],
    ["BSONRegExp", ["a.b", "im"]],
    ["Timestamp", [{ t: 2, i: 1 }]],
    ["Code", ["f()"]],
    ["UUID", ["0123456789abcdef0123456789abcdef"]],
    ["Decimal128", ["1.50"]],
    ["DBRef", ["notes", 1]],
    ["MinKey", []],
    ["MaxKey", []],
  ])("creates a %s that is stored as such", (name, args) => {
    const [called, created] = [BSON[name](...args), new BSON[name](...args)];
    expect(called).toEqual(created);
    expect(called).toEqual(new bson[name](...args));
    expect(stored(called)).toEqual(called);
  });

  test.each([
    ["Int32", "0"],
    ["Double", "0"],
    ["Long", "0"],
    ["Decimal128", "0"],
    ["Timestamp", "0"],
  ])("creates the %s zero without an argument", (name, text) => {
    expect(BSON[name]().toString()).toBe(text);
    expect(new BSON[name]().toString()).toBe(text);
  });

  test("reads one argument of Long as its value, and two as its halves", () => {
    expect(BSON.Long(2 ** 40).toString()).toBe("1099511627776");
    expect(BSON.Long(-1).toString()).toBe("-1");
    expect(BSON.Long(1, 1).toString()).toBe("4294967297");
    expect(new BSON.Long("9223372036854775807").toString()).toBe("9223372036854775807");
    expect(BSON.Long(BSON.Long(1, 1)).toString()).toBe("4294967297");
  });

  test("has the package's static methods", () => {
    expect(BSON.Decimal128.fromString("0.10").toString()).toBe("0.10");
    expect(BSON.ObjectId.isValid(HEX)).toBe(true);
    expect(BSON.ObjectId.createFromHexString(HEX)).toEqual(BSON.ObjectId(HEX));
    expect(BSON.Long.fromNumber(5).toNumber()).toBe(5);
  });

  test("recognises MinKey and MaxKey that are not called", () => {
    expect(bareKey(BSON.MinKey)).toEqual(new bson.MinKey());
    expect(bareKey(BSON.MaxKey)).toEqual(new bson.MaxKey());
    for (const value of [BSON.ObjectId, Date, { _bsontype: "MinKey" }, undefined]) {
      expect(bareKey(value)).toBeUndefined();
    }
    expect(EJSON.stringify({ $gt: BSON.MinKey })).toBe('{"$gt":{"$minKey":1}}');
  });

  test("can be subclassed", () => {
    class Id extends BSON.ObjectId {}
    expect(new Id(HEX) instanceof Id).toBe(true);
    expect(new Id(HEX) instanceof BSON.ObjectId).toBe(true);
  });

  test("keeps nothing that a function assigns to a class", () => {
    const change = vm.runInNewContext("(BSON) => { BSON.ObjectId.left = 1; delete BSON.Long.ZERO; BSON.Long = null; }");
    change(BSON);
    expect([bson.ObjectId.left, BSON.ObjectId.left]).toEqual([undefined, undefined]);
    expect(BSON.Long.ZERO).toEqual(bson.Long.fromNumber(0));
    expect(() => Object.freeze(BSON.ObjectId)).toThrow(TypeError);
    expect(Object.isExtensible(bson.ObjectId)).toBe(true);
  });
});

describe("BSON.Binary", () => {
  test("converts from and to text, base64 and hexadecimal digits", () => {
    const binary = BSON.Binary.fromText("aé€😀");
    expect([binary.text(), binary.toHex()]).toEqual(["aé€😀", "61c3a9e282acf09f9880"]);
    expect(BSON.Binary.fromHex(binary.toHex())).toEqual(binary);
    expect(BSON.Binary.fromBase64(binary.toBase64())).toEqual(binary);
    expect(binary.sub_type).toBe(0);
    expect(BSON.Binary.fromHex("ff", 128).sub_type).toBe(128);
    expect(BSON.Binary.fromBase64("/w==", 5).sub_type).toBe(5);
  });

  test.each(["YQ", "YQ=", "YQ===", "=YQ=", "Y-_=", "YQ==\n", " YQ=", 5, undefined])("rejects %j as base64", (value) => {
    expect(() => BSON.Binary.fromBase64(value)).toThrow(expect.objectContaining({ errorCode: "InvalidParameter" }));
  });

  test.each(["a", "gg", "0x12", 1, null])("rejects %j as hexadecimal digits", (value) => {
    expect(() => BSON.Binary.fromHex(value)).toThrow(expect.objectContaining({ errorCode: "InvalidParameter" }));
  });

  test("adds its methods to values of documents", () => {
    expect(stored(new bson.Binary(Buffer.from("abc"))).text()).toBe("abc");
    expect(stored(new bson.UUID("0123456789abcdef0123456789abcdef")).toHex()).toBe("0123456789abcdef0123456789abcdef");
    expect(Object.keys(bson.Binary.prototype)).toEqual([]);
  });

  test("reads only the bytes that were written", () => {
    const binary = new BSON.Binary();
    binary.put("a");
    expect([binary.text(), binary.toHex(), binary.toBase64()]).toEqual(["a", "61", "YQ=="]);
    expect(EJSON.stringify(binary)).toBe('{"$binary":{"base64":"YQ==","subType":"00"}}');
  });

  test("does not show the memory of other buffers", () => {
    const values = [BSON.Binary.fromText("a"), crypto.hash("md5", "a"), crypto.encrypt("aes", "a", "k".repeat(16))];
    for (const binary of values) {
      expect(binary.buffer.buffer.byteLength).toBe(binary.length());
    }
  });
});

describe("EJSON.stringify", () => {
  test.each([
    [1, '{"$numberInt":"1"}'],
    [-(2 ** 31), '{"$numberInt":"-2147483648"}'],
    [2 ** 31, '{"$numberDouble":"2147483648.0"}'],
    [1.5, '{"$numberDouble":"1.5"}'],
    [-0, '{"$numberDouble":"-0.0"}'],
    [Number.NaN, '{"$numberDouble":"NaN"}'],
    [-Infinity, '{"$numberDouble":"-Infinity"}'],
    [5n, '{"$numberLong":"5"}'],
    [new Date(-1), '{"$date":{"$numberLong":"-1"}}'],
    [vm.runInNewContext("new Date(5)"), '{"$date":{"$numberLong":"5"}}'],
    [undefined, '{"$undefined":true}'],
    [null, "null"],
    ["text", '"text"'],
    [new bson.ObjectId(HEX), `{"$oid":"${HEX}"}`],
    [new bson.Int32(1), '{"$numberInt":"1"}'],
    [new bson.Double(1), '{"$numberDouble":"1.0"}'],
    [bson.Long.MAX_VALUE, '{"$numberLong":"9223372036854775807"}'],
    [bson.Decimal128.fromString("1.50"), '{"$numberDecimal":"1.50"}'],
    [new bson.Timestamp({ t: 2, i: 1 }), '{"$timestamp":{"t":2,"i":1}}'],
    [new bson.MaxKey(), '{"$maxKey":1}'],
    [/a"b/gi, '{"$regularExpression":{"pattern":"a\\"b","options":"i"}}'],
    [new bson.Code("f()", { a: 1 }), '{"$code":"f()","$scope":{"a":{"$numberInt":"1"}}}'],
    [new bson.DBRef("c", new bson.ObjectId(HEX)), `{"$ref":"c","$id":{"$oid":"${HEX}"}}`],
    [Buffer.from("a"), '{"$binary":{"base64":"YQ==","subType":"00"}}'],
    [new Map([["a", 1]]), '{"a":{"$numberInt":"1"}}'],
    [{ a: [1, { b: undefined, f() {} }] }, '{"a":[{"$numberInt":"1"},{"b":{"$undefined":true}}]}'],
    [JSON.parse('{"__proto__":true}'), '{"__proto__":true}'],
    [{ _bsontype: "ObjectId" }, '{"_bsontype":"ObjectId"}'],
    [{ toBSON: () => "converted" }, '"converted"'],
  ])("writes %p as canonical Extended JSON", (value, text) => {
    expect(EJSON.stringify(value)).toBe(text);
  });

  test("takes a replacer and a space", () => {
    expect(EJSON.stringify({ a: "x", b: "y" }, ["a"], 1)).toBe('{\n "a": "x"\n}');
    expect(EJSON.stringify({ a: "x" }, (key, value) => (key === "a" ? "z" : value))).toBe('{"a":"z"}');
  });

  test("rejects a value that contains itself, and accepts one that occurs twice", () => {
    const twice = { a: 1 };
    expect(EJSON.stringify([twice, twice])).toBe('[{"a":{"$numberInt":"1"}},{"a":{"$numberInt":"1"}}]');
    twice.self = [twice];
    expect(() => EJSON.stringify(twice)).toThrow("contains itself");
    expect(() => EJSON.stringify(new Date(Number.NaN))).toThrow("invalid date");
    expect(() => EJSON.stringify(2n ** 63n)).toThrow("64-bit");
  });
});

describe("EJSON.parse", () => {
  test.each([
    ['{"$numberInt":"-5"}', -5],
    ['{"$numberDouble":"1.5"}', 1.5],
    ['{"$numberDouble":"-0.0"}', -0],
    ['{"$numberDouble":"NaN"}', Number.NaN],
    ['{"$numberLong":"9007199254740991"}', 9007199254740991],
    ['{"$numberLong":"9007199254740993"}', bson.Long.fromString("9007199254740993")],
    ['{"$numberLong":"-9223372036854775808"}', bson.Long.MIN_VALUE],
    ['{"$date":{"$numberLong":"5"}}', new Date(5)],
    ['{"$date":"2020-01-02T03:04:05.006Z"}', new Date("2020-01-02T03:04:05.006Z")],
    ['{"$date":5}', new Date(5)],
    [`{"$oid":"${HEX}"}`, new bson.ObjectId(HEX)],
    ['{"$numberDecimal":"1.50"}', bson.Decimal128.fromString("1.50")],
    ['{"$binary":{"base64":"YQ==","subType":"80"}}', new bson.Binary(Buffer.from("a"), 128)],
    ['{"$minKey":1}', new bson.MinKey()],
    ['{"$timestamp":{"t":2,"i":1}}', new bson.Timestamp({ t: 2, i: 1 })],
    ['{"$regularExpression":{"pattern":"a","options":"i"}}', new bson.BSONRegExp("a", "i")],
    [`{"$ref":"c","$id":{"$oid":"${HEX}"}}`, new bson.DBRef("c", new bson.ObjectId(HEX))],
    ['{"$code":"f()","$scope":{"a":{"$numberInt":"1"}}}', new bson.Code("f()", { a: 1 })],
    ['[1,2.5,"a",null,true,{"a":{"b":[{"$numberInt":"1"}]}}]', [1, 2.5, "a", null, true, { a: { b: [1] } }]],
    ['{"$gt":{"$numberInt":"1"},"$lt":5}', { $gt: 1, $lt: 5 }],
    ['{"$oid":"plain","other":1}', { $oid: "plain", other: 1 }],
    ['{"$regex":"^a","$options":"i"}', { $regex: "^a", $options: "i" }],
    ['{"constructor":{"$numberInt":"1"}}', { constructor: 1 }],
  ])("reads %s", (text, value) => {
    expect(EJSON.parse(text)).toEqual(value);
  });

  test.each([
    '{"$oid":5}',
    '{"$oid":"xyz"}',
    '{"$numberInt":"2147483648"}',
    '{"$numberInt":1}',
    '{"$numberLong":"9223372036854775808"}',
    '{"$numberLong":"1e3"}',
    '{"$numberDouble":"abc"}',
    '{"$numberDecimal":"abc"}',
    '{"$date":"never"}',
    '{"$date":{"$numberLong":"x"}}',
    '{"$binary":{"base64":"YQ","subType":"00"}}',
    '{"$timestamp":{"t":-1,"i":0}}',
    '{"$uuid":"12"}',
    "{",
  ])("rejects %s", (text) => {
    expect(() => EJSON.parse(text)).toThrow();
  });

  test("does not change the prototype of a result", () => {
    const parsed = EJSON.parse('{"__proto__":{"polluted":{"$numberInt":"1"}}}');
    expect(parsed.polluted).toBeUndefined();
    expect(Object.keys(parsed)).toEqual(["__proto__"]);
  });

  test("reads back each value that stringify writes", () => {
    const value = { a: [1, 1.5, "x", null], id: BSON.ObjectId(HEX), when: new Date(5), long: bson.Long.MAX_VALUE };
    expect(EJSON.parse(EJSON.stringify(value))).toEqual(value);
  });
});

test("writes plain JSON for whatever JSON can hold", () => {
  const value = { a: 2 ** 40, b: BSON.Int32(1), c: BSON.Long(5), d: undefined, e: new Date(5), f: BSON.ObjectId(HEX) };
  expect(JSON.stringify(toPlainJson(value))).toBe(
    `{"a":1099511627776,"b":1,"c":5,"e":{"$date":{"$numberLong":"5"}},"f":{"$oid":"${HEX}"}}`,
  );
  expect(JSON.stringify(toPlainJson([Number.NaN, bson.Long.MAX_VALUE]))).toBe(
    '[{"$numberDouble":"NaN"},{"$numberLong":"9223372036854775807"}]',
  );
});

/** Creates a pair of keys in PEM format. */
const pair = (type, options, publicType = "spki", privateType = "pkcs8") =>
  nodeCrypto.generateKeyPairSync(type, {
    ...options,
    publicKeyEncoding: { type: publicType, format: "pem" },
    privateKeyEncoding: { type: privateType, format: "pem" },
  });

const rsa = pair("rsa", { modulusLength: 2048 });
const curves = { ES256: "P-256", ES384: "P-384", ES512: "P-521" };
const FUTURE = Math.floor(Date.now() / 1000) + 3600;

function keysFor(algorithm) {
  if (algorithm.startsWith("HS")) {
    return { publicKey: "SuperSecret", privateKey: "SuperSecret" };
  }
  return algorithm.startsWith("ES") ? pair("ec", { namedCurve: curves[algorithm] }) : rsa;
}

const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

describe("utils.jwt", () => {
  const all = ["HS", "RS", "ES", "PS"].flatMap((family) => [256, 384, 512].map((size) => `${family}${size}`));

  test.each(all)("encodes and decodes a token with %s", (algorithm) => {
    const { publicKey, privateKey } = keysFor(algorithm);
    const token = jwt.encode(algorithm, { sub: "a", exp: FUTURE }, privateKey, { kid: "1" });
    expect(jwt.decode(token, publicKey)).toEqual({ sub: "a", exp: FUTURE });
    const { header } = jwt.decode(token, publicKey, true, [algorithm]);
    expect(header).toEqual({ alg: algorithm, typ: "JWT", kid: "1" });
    expect(() =>
      jwt.decode(
        token,
        publicKey,
        false,
        all.filter((name) => name !== algorithm),
      ),
    ).toThrow(`signing method ${algorithm} is invalid`);
    const [head, , signature] = token.split(".");
    expect(() => jwt.decode(`${head}.${part({ sub: "b" })}.${signature}`, publicKey)).toThrow("signature is invalid");
    expect(() => jwt.decode(`${token.slice(0, token.lastIndexOf("."))}.`, publicKey)).toThrow("signature is invalid");
  });

  test("verifies the token of RFC 7515 A.1, which has expired", () => {
    const token =
      "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    const secret = new bson.Binary(Buffer.from(key, "base64url"));
    expect(() => jwt.decode(token, secret)).toThrow("token is expired");
    expect(() => jwt.decode(token.replace(".dB", ".dC"), secret)).toThrow("signature is invalid");
  });

  test("rejects a token that is not valid yet or has times of another type", () => {
    const decoded = (claims) => () => jwt.decode(jwt.encode("HS256", claims, "secret"), "secret");
    expect(decoded({ nbf: FUTURE })).toThrow("token is not valid yet");
    expect(decoded({ exp: "never" })).toThrow("token is expired");
    expect(decoded({ exp: FUTURE, nbf: 0 })()).toEqual({ exp: FUTURE, nbf: 0 });
  });

  test("rejects a public key as the secret of an HMAC", () => {
    const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: "attacker" })}`;
    for (const key of [rsa.publicKey, ` ${rsa.publicKey}`, new bson.Binary(Buffer.from(rsa.publicKey))]) {
      const bytes = typeof key === "string" ? key : Buffer.from(rsa.publicKey);
      const forged = `${text}.${nodeCrypto.createHmac("sha256", bytes).update(text).digest("base64url")}`;
      expect(() => jwt.decode(forged, key)).toThrow("a PEM key does not fit");
    }
    expect(() => jwt.encode("HS256", {}, rsa.privateKey)).toThrow("a PEM key does not fit");
  });

  test("rejects tokens without a signature", () => {
    for (const alg of ["none", "None", "NONE", "", undefined, null, ["HS256"], "HS1", "constructor"]) {
      const text = `${part({ alg, typ: "JWT" })}.${part({ sub: "attacker" })}`;
      expect(() => jwt.decode(`${text}.`, "secret")).toThrow("is not supported");
      expect(() => jwt.decode(`${text}.`, "secret", false, [alg])).toThrow("is not supported");
    }
    expect(() => jwt.encode("none", {}, "secret")).toThrow("is not supported");
  });

  test("rejects a key of another kind than the algorithm's", () => {
    const ec = pair("ec", { namedCurve: "P-256" });
    for (const [algorithm, key] of [
      ["RS256", "secret"],
      ["RS256", ec.privateKey],
      ["ES256", rsa.privateKey],
      ["ES384", ec.privateKey],
      ["PS256", ec.privateKey],
      ["RS256", rsa.publicKey],
      ["HS256", ""],
      ["HS256", undefined],
      ["HS256", { _bsontype: "Binary", buffer: {}, position: 0 }],
    ]) {
      expect(() => jwt.encode(algorithm, {}, key)).toThrow(expect.objectContaining({ name: "FunctionError" }));
    }
    const token = jwt.encode("ES256", {}, ec.privateKey);
    expect(() => jwt.decode(token, rsa.publicKey)).toThrow("does not fit");
  });

  test.each(["", "a.b", "a.b.c", "a.b.c.d", "e30.e30.!", "bnVsbA.e30.", "e30.W10.", 5, null])(
    "rejects %j as a token",
    (token) => {
      expect(() => jwt.decode(token, "secret")).toThrow(expect.objectContaining({ errorCode: "InvalidParameter" }));
    },
  );

  test("rejects critical header fields and keeps the algorithm in the header", () => {
    const token = jwt.encode("HS256", {}, "secret", { crit: ["b64"] });
    expect(() => jwt.decode(token, "secret")).toThrow("critical");
    expect(jwt.decode(jwt.encode("HS256", {}, "secret", { alg: "none" }), "secret", true).header.alg).toBe("HS256");
  });

  test("writes numbers of BSON as numbers", () => {
    const token = jwt.encode("HS256", { exp: BSON.Long(FUTURE), n: BSON.Int32(5) }, "secret");
    expect(jwt.decode(token, "secret")).toEqual({ exp: FUTURE, n: 5 });
  });
});

describe("utils.crypto", () => {
  test("computes the documented hashes", () => {
    expect(crypto.hmac("hello!", "super-secret", "sha256", "base64")).toBe(
      "SUXd6PRMaTXXgBGaGsIHzaDWgTSa6C3D44lRGrvRak0=",
    );
    const hashed = crypto.hash("sha256", "hello!");
    expect(hashed instanceof BSON.Binary).toBe(true);
    expect(hashed.toBase64()).toBe("zgYJL7lI2f+sfRo3bkBLJrdXW8wR7gWkYV/vT+w6MIs=");
    expect(crypto.hash("sha256", BSON.Binary.fromText("hello!"))).toEqual(hashed);
    expect(crypto.hash("md5", "").toHex()).toBe("d41d8cd98f00b204e9800998ecf8427e");
    expect(crypto.hash("sha1", "abc").toHex()).toBe("a9993e364706816aba3e25717850c26c9cd0d89d");
  });

  test("computes the HMAC of RFC 4231, test case 2", () => {
    expect(crypto.hmac("what do ya want for nothing?", "Jefe", "sha256", "hex")).toBe(
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    );
    expect(crypto.hmac("what do ya want for nothing?", BSON.Binary.fromText("Jefe"), "sha512", "hex")).toMatch(
      /^164b7a7bfcf819e2e395fbe73b56e0a3/,
    );
  });

  test.each([16, 24, 32])("encrypts with AES-GCM and a key of %d bytes", (size) => {
    const key = "k".repeat(size);
    const encrypted = crypto.encrypt("aes", "some secret text €", key);
    expect(encrypted.length()).toBe(12 + Buffer.byteLength("some secret text €") + 16);
    expect(crypto.decrypt("aes", encrypted, key).text()).toBe("some secret text €");
    expect(crypto.encrypt("aes", "a", key).toHex()).not.toBe(crypto.encrypt("aes", "a", key).toHex());
  });

  test("decrypts bytes in the documented order: nonce, encrypted bytes, tag", () => {
    const key = "0123456789abcdef";
    const nonce = Buffer.alloc(12, 7);
    const cipher = nodeCrypto.createCipheriv("aes-128-gcm", key, nonce);
    const bytes = Buffer.concat([nonce, cipher.update("hello!"), cipher.final(), cipher.getAuthTag()]);
    expect(crypto.decrypt("aes", new bson.Binary(bytes), key).text()).toBe("hello!");
  });

  test("rejects encrypted bytes that were changed, cut or need another key", () => {
    const key = "k".repeat(16);
    const bytes = Buffer.from(crypto.encrypt("aes", "text", key).value());
    for (let index = 0; index < bytes.length; index++) {
      const changed = Buffer.from(bytes);
      changed[index] ^= 1;
      expect(() => crypto.decrypt("aes", new bson.Binary(changed), key)).toThrow("has been changed");
    }
    expect(() => crypto.decrypt("aes", new bson.Binary(bytes.subarray(0, 27)), key)).toThrow("too short");
    expect(() => crypto.decrypt("aes", new bson.Binary(bytes), "x".repeat(16))).toThrow("the key is wrong");
    expect(() => crypto.decrypt("aes", "text", key)).toThrow("must be a Binary");
    expect(() => crypto.encrypt("aes", "text", "k".repeat(17))).toThrow("16, 24, 32 bytes");
    expect(() => crypto.encrypt("des", "text", key)).toThrow('must be one of "aes"');
  });

  const pkcs1 = pair("rsa", { modulusLength: 2048 }, "pkcs1", "pkcs1");

  test.each([undefined, "pss", "pkcs1v15"])("signs and verifies with the scheme %p", (scheme) => {
    const signature = crypto.sign("rsa", "message", pkcs1.privateKey, scheme);
    expect(signature instanceof BSON.Binary).toBe(true);
    expect(crypto.verify("rsa", "message", pkcs1.publicKey, signature, scheme)).toBe(true);
    expect(crypto.verify("rsa", "massage", pkcs1.publicKey, signature, scheme)).toBe(false);
    expect(crypto.verify("rsa", "message", rsa.publicKey, signature, scheme)).toBe(false);
    const other = scheme === "pkcs1v15" ? "pss" : "pkcs1v15";
    expect(crypto.verify("rsa", "message", pkcs1.publicKey, signature, other)).toBe(false);
    expect(crypto.verify("rsa", "message", pkcs1.publicKey, BSON.Binary.fromHex(""), scheme)).toBe(false);
  });

  test("rejects unknown names and keys of other kinds", () => {
    const ec = pair("ec", { namedCurve: "P-256" });
    expect(() => crypto.sign("rsa", "message", ec.privateKey)).toThrow("must be an RSA key");
    expect(() => crypto.sign("rsa", "message", pkcs1.publicKey)).toThrow("must be an RSA key");
    expect(() => crypto.sign("dsa", "message", pkcs1.privateKey)).toThrow('must be one of "rsa"');
    expect(() => crypto.sign("rsa", "message", pkcs1.privateKey, "raw")).toThrow("signatureScheme");
    expect(() => crypto.verify("rsa", "message", pkcs1.publicKey, "signature")).toThrow("must be a Binary");
    expect(() => crypto.hash("sha3", "a")).toThrow('"hashFunction" argument must be one of');
    expect(() => crypto.hash("md5", { a: 1 })).toThrow('"input" argument must be a string or a Binary');
    expect(() => crypto.hmac("a", "b", "md5", "hex")).toThrow("hashFunction");
    expect(() => crypto.hmac("a", "b", "sha1", "binary")).toThrow("outputFormat");
  });
});
