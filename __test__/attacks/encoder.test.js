"use strict";

// The encoder reuses one buffer. No call of the library may change another call's document.

const bson = require("bson");
const { native } = require("../../lib/bridge.js");
const { encode } = require("../../lib/bson/encode.js");
const { MODE, PASSWORD, Realm, STORE, logInNew, openApp, openBackend, openDefinition } = require("../helpers.js");

const read = (bytes) => bson.deserialize(Buffer.from(bytes));
const collectionOf = (user) => user.mongoClient("mongodb-atlas").db("attacks").collection("encoder");

afterEach(() => jest.restoreAllMocks());

describe("a document whose getters encode documents", () => {
  test("is encoded correctly", () => {
    const inner = [];
    const outer = {
      first: "a",
      get getter() {
        inner.push(read(encode({ other: "document", list: [1, 2, 3] })));
        return "b";
      },
      converted: {
        toBSON: () => {
          inner.push(read(encode({ large: "x".repeat(100_000) })));
          return { c: 1 };
        },
      },
      list: [
        {
          get item() {
            return read(
              encode({
                get deeper() {
                  return read(encode({ deepest: 1 }));
                },
              }),
            );
          },
        },
      ],
      large: "y".repeat(50_000),
      last: "d",
    };
    const expected = {
      first: "a",
      getter: "b",
      converted: { c: 1 },
      list: [{ item: { deeper: { deepest: 1 } } }],
      large: "y".repeat(50_000),
      last: "d",
    };
    expect(read(encode(outer))).toEqual(expected);
    expect(inner).toEqual([{ other: "document", list: [1, 2, 3] }, { large: "x".repeat(100_000) }]);
    expect(read(encode(outer))).toEqual(expected);
  });

  test("is encoded correctly after one of them has failed", () => {
    const outer = {
      first: "a",
      get getter() {
        expect(() => encode({ x: "z".repeat(1000), at: new Date(Number.NaN) })).toThrow("the date at 'at' is invalid");
        return "b";
      },
      last: "c",
    };
    expect(read(encode(outer))).toEqual({ first: "a", getter: "b", last: "c" });
    const failing = {
      first: "a",
      get getter() {
        encode({ x: 1 });
        throw new Error("no value");
      },
    };
    expect(() => encode(failing)).toThrow("no value");
    expect(read(encode({ a: { b: 1 } }))).toEqual({ a: { b: 1 } });
  });

  test("does not affect the next document after a stack overflow", () => {
    const recursive = {
      get again() {
        return read(encode(recursive));
      },
    };
    expect(() => encode({ a: "x", recursive })).toThrow("Maximum call stack size exceeded");
    expect(read(encode({ a: { b: 1 } }))).toEqual({ a: { b: 1 } });
  });

  test("causes errors with the path in the right document", () => {
    const outer = {
      document: {
        get outer() {
          return encode({ document: { inner: new Date(Number.NaN) } });
        },
      },
    };
    expect(() => encode(outer)).toThrow("the date at 'inner' is invalid");
  });
});

describe("calls of the library from within a document", () => {
  test("store both documents", async () => {
    const plants = collectionOf(await logInNew(await openApp({ definition: openDefinition() })));
    const inner = [];
    const document = {
      _id: 1,
      get name() {
        inner.push(plants.insertOne({ _id: 2, name: "inner", note: "n".repeat(500) }));
        return "outer";
      },
      kind: { toBSON: () => inner.push(plants.updateOne({ _id: 2 }, { $set: { updated: true } })) },
      last: true,
    };
    expect(await plants.insertOne(document)).toEqual({ insertedId: 1 });
    await Promise.all(inner);
    expect(await plants.findOne({ _id: 1 })).toEqual({ _id: 1, name: "outer", kind: 2, last: true });
    expect(await plants.findOne({ _id: 2 })).toMatchObject({ _id: 2, name: "inner", note: "n".repeat(500) });
  });

  test("send the right arguments in filters, function calls and streams", async () => {
    const user = await logInNew(await openApp({ definition: openDefinition() }));
    const plants = collectionOf(user);
    await plants.insertMany([{ _id: 1 }, { _id: 2 }]);
    const counts = [];
    const filter = {
      get _id() {
        counts.push(plants.count({ _id: { $gt: 0 } }));
        return 1;
      },
    };
    expect(await plants.find(filter)).toEqual([{ _id: 1 }]);
    expect(await plants.deleteOne(filter)).toEqual({ deletedCount: 1 });
    expect(await Promise.all(counts)).toHaveLength(2);
    const argument = { toBSON: () => counts.push(plants.count({})) };
    await expect(user.functions.sum(argument)).rejects.toThrow("function not found: 'sum'");
    const stream = plants.watch({
      ids: [
        {
          toBSON: () => {
            counts.push(plants.count({ other: 1 }));
            return 2;
          },
        },
      ],
    });
    const event = stream.next();
    await new Promise((resolve) => setTimeout(resolve, 300));
    await plants.updateOne({ _id: 2 }, { $set: { seen: true } });
    expect((await event).value).toMatchObject({ operationType: "update", documentKey: { _id: 2 } });
    await stream.return();
    await Promise.all(counts);
  });

  test("may close the app", async () => {
    const app = await openApp({ definition: openDefinition() });
    const plants = collectionOf(await logInNew(app));
    let closing;
    const document = {
      get _id() {
        closing = app.close();
        return 1;
      },
    };
    await expect(plants.insertOne(document)).rejects.toThrow("The app has been closed");
    await closing;
  });

  if (MODE !== "remote") {
    test("store both documents with a backend handle", async () => {
      const plants = (await openBackend({ store: STORE })).collection("attacks", "encoder");
      const inner = [];
      const document = {
        _id: 1,
        get name() {
          inner.push(plants.insertOne({ _id: 2, name: "inner" }));
          return "outer";
        },
      };
      await plants.insertOne(document);
      await Promise.all(inner);
      expect(await plants.find({}, { sort: { _id: 1 } })).toEqual([
        { _id: 1, name: "outer" },
        { _id: 2, name: "inner" },
      ]);
    });
  }
});

describe("passwords", () => {
  /** Records the payload of each native call, and its text at the time of the call. */
  function spy() {
    const request = native.request;
    const given = [];
    jest.spyOn(native, "request").mockImplementation((...args) => {
      const payload = args.at(-1);
      given.push({ operation: args[2], payload, text: payload.toString("latin1") });
      return request(...args);
    });
    return given;
  }

  const whole = (bytes) => Buffer.from(bytes.buffer).toString("latin1");

  test("are not left in the buffer by a call", async () => {
    const app = await openApp();
    const given = spy();
    const user = await logInNew(app);
    const { email } = user.profile;
    const another = { email: `x${email}`, password: PASSWORD };
    await expect(user.linkCredentials(Realm.Credentials.emailPassword(another.email, PASSWORD))).rejects.toThrow();
    await expect(app.emailPasswordAuth.callResetPasswordFunction(another)).rejects.toThrow();
    await expect(
      app.emailPasswordAuth.resetPassword({ password: PASSWORD, token: "t", tokenId: "i" }),
    ).rejects.toThrow();
    await expect(app.logIn(Realm.Credentials.emailPassword({ email, password: `${PASSWORD}!` }))).rejects.toThrow();
    await expect(app.logIn(Realm.Credentials.apiKey(PASSWORD))).rejects.toThrow();
    await expect(app.logIn(Realm.Credentials.jwt(PASSWORD))).rejects.toThrow();
    await expect(app.logIn(Realm.Credentials.function({ secret: PASSWORD.repeat(4000) }))).rejects.toThrow();
    const secret = given.filter(({ text }) => text.includes(PASSWORD));
    expect([...new Set(secret.map(({ operation }) => operation))].sort()).toEqual([
      "link",
      "logIn",
      "register",
      "reset",
      "reset/call",
    ]);
    for (const { payload } of secret) {
      expect(whole(payload)).not.toContain(PASSWORD);
    }
    expect(whole(encode({}))).not.toContain(PASSWORD);
  });

  test("are not left in the buffer by a call that fails", async () => {
    const app = await openApp();
    const { buffer } = encode({});
    const payload = {
      secret: PASSWORD,
      get failing() {
        throw new Error("no value");
      },
    };
    await expect(app.logIn(Realm.Credentials.function(payload))).rejects.toThrow("no value");
    jest.spyOn(native, "request").mockImplementation(() => {
      throw new Error("no request");
    });
    await expect(app.logIn(Realm.Credentials.emailPassword("a@example.com", PASSWORD))).rejects.toThrow("no request");
    expect(Buffer.from(buffer).toString("latin1")).not.toContain(PASSWORD);
  });

  test("are not left in a buffer that was too small", () => {
    const { buffer } = encode({});
    encode({ password: PASSWORD, text: "x".repeat(buffer.byteLength) });
    expect(Buffer.from(buffer).toString("latin1")).not.toContain(PASSWORD);
  });
});

test("a large buffer is not kept", () => {
  const large = encode({ text: "x".repeat(3 * 2 ** 20) });
  const next = encode({ a: 1 });
  expect(next.buffer.byteLength).toBeLessThanOrEqual(2 ** 20);
  expect(read(large).text).toHaveLength(3 * 2 ** 20);
});

test("arguments that are too large for BSON are rejected", () => {
  expect(() => encode({ item: Buffer.alloc(2 ** 31) })).toThrow("must not be larger than 2147483647 bytes");
  expect(read(encode({ a: 1 }))).toEqual({ a: 1 });
});
