"use strict";

const { BSON } = require("..");
const {
  COLLECTION,
  DATABASE,
  customDataOf,
  eventually,
  logInNew,
  openApp,
  openBackend,
  openKept,
  QUICKSTART,
  temporaryDirectory,
  writeDefinition,
} = require("./helpers.js");

test("is empty without a document, and if custom user data is disabled", async () => {
  const user = await logInNew(await openApp());
  expect(user.customData).toEqual({});
  expect(await user.refreshCustomData()).toEqual({});
  const definition = writeDefinition({ "auth/custom_user_data.json": { enabled: false } });
  const other = await logInNew(await openApp({ definition }));
  await customDataOf(other).insertOne({ userId: other.id });
  expect(await other.refreshCustomData()).toEqual({});
});

test("is a new object on each read; changes to it have no effect", async () => {
  const user = await logInNew(await openApp());
  await customDataOf(user).insertOne({ userId: user.id, deep: { list: [1] } });
  const data = await user.refreshCustomData();
  expect(user.customData).not.toBe(user.customData);
  data.deep.list.push(2);
  user.customData.userId = "another-user";
  expect(user.customData).toMatchObject({ userId: user.id, deep: { list: [1] } });
  expect(() => {
    user.customData = {};
  }).toThrow(TypeError);
});

test("is refreshed by a log-in, and survives a restart unchanged", async () => {
  const directory = temporaryDirectory();
  const app = await openKept(directory);
  const user = await logInNew(app);
  await customDataOf(user).insertOne({ userId: user.id, n: 1 });
  await user.refreshCustomData();
  const { email } = user.profile;
  await customDataOf(user).updateOne({ userId: user.id }, { $set: { n: 2 } });
  await app.close();
  const reopened = await openKept(directory);
  expect(reopened.currentUser.customData.n).toBe(1);
  const { Credentials } = require("..");
  expect((await reopened.logIn(Credentials.emailPassword(email, "passw0rd"))).customData.n).toBe(2);
});

test("preserves every BSON type", async () => {
  const app = await openApp();
  const user = await logInNew(app);
  const collection = customDataOf(user);
  const document = {
    _id: new BSON.ObjectId(),
    userId: user.id,
    date: new Date("1969-07-20T20:17:40.123Z"),
    decimal: BSON.Decimal128.fromString("0.10"),
    int32: new BSON.Int32(-7),
    long: BSON.Long.fromString("9007199254740993"),
    smallLong: BSON.Long.fromNumber(5),
    double: new BSON.Double(2),
    fraction: 1.5,
    large: 2 ** 40,
    huge: 1e300,
    negativeZero: -0,
    infinity: Number.NEGATIVE_INFINITY,
    timestamp: new BSON.Timestamp({ t: 5, i: 7 }),
    binary: new BSON.Binary(Buffer.from([1, 2, 255]), 128),
    bytes: Buffer.from("bytes"),
    uuid: new BSON.UUID("2f1b0c5e-8f6d-4c0a-9a53-3f1d2e4b5a69"),
    regex: new BSON.BSONRegExp("^a", "i"),
    none: null,
    yes: true,
    "ключ 键 🔑": "значение 值 😀",
    deep: { list: [1, "zwei", { drei: [new BSON.ObjectId("63c1b2a1f0e1d2c3b4a59687")] }], empty: {}, nothing: [] },
    skipped: undefined,
    holes: [undefined, 1],
  };
  await collection.insertOne(document);
  const data = await user.refreshCustomData();
  expect(data).toEqual(await collection.findOne());
  const { skipped, holes, int32, smallLong, double, bytes, ...same } = document;
  expect(data).toMatchObject(same);
  expect(data).toMatchObject({ holes: [null, 1], int32: -7, smallLong: 5, double: 2 });
  expect(Buffer.from(data.bytes.buffer).toString()).toBe("bytes");
  expect("skipped" in data).toBe(false);
  expect(data._id).toBeInstanceOf(BSON.ObjectId);
  expect(data.date).toBeInstanceOf(Date);
  expect(data.decimal).toBeInstanceOf(BSON.Decimal128);
  expect(data.long).toBeInstanceOf(BSON.Long);
  expect(data.uuid).toBeInstanceOf(BSON.UUID);
  expect(data.timestamp).toBeInstanceOf(BSON.Timestamp);
  expect(Object.is(data.negativeZero, -0)).toBe(true);

  // The store holds whole numbers as integers of any size.
  const types = async (filter) => collection.count(filter);
  expect(await types({ large: BSON.Long.fromNumber(2 ** 40) })).toBe(1);
  const claims = JSON.parse(Buffer.from(user.accessToken.split(".")[1], "base64url").toString());
  expect(claims.user_data).toMatchObject({
    large: { $numberLong: "1099511627776" },
    int32: { $numberInt: "-7" },
    double: { $numberDouble: "2.0" },
    date: { $date: { $numberLong: String(document.date.getTime()) } },
    decimal: { $numberDecimal: "0.10" },
  });
});

test("of one megabyte is complete, although the access token omits it", async () => {
  const lines = [];
  const app = await openApp({ logger: (level, message) => lines.push([level, message]) });
  const user = await logInNew(app);
  const text = "ä".repeat(500_000);
  await customDataOf(user).insertOne({ userId: user.id, text });
  expect((await user.refreshCustomData()).text).toBe(text);
  expect(user.accessToken.length).toBeLessThan(2000);
  await eventually(() =>
    expect(lines).toContainEqual(["warn", expect.stringContaining("does not fit into the access token")]),
  );
});

test("matches the id as a string, else as an ObjectId; the first inserted document wins", async () => {
  const directory = temporaryDirectory();
  const app = await openKept(directory);
  const backend = await openBackend({ definition: QUICKSTART, baseFilePath: directory });
  const seeded = backend.collection(DATABASE, COLLECTION);
  const user = await logInNew(app);
  await seeded.insertOne({ userId: [user.id], n: 0 });
  expect(await user.refreshCustomData()).toEqual({});
  await seeded.insertMany([
    { userId: new BSON.ObjectId(user.id), n: 1 },
    { userId: new BSON.ObjectId(user.id), n: 2 },
  ]);
  expect((await user.refreshCustomData()).n).toBe(1);
  await seeded.insertMany([
    { userId: user.id, n: 3 },
    { userId: user.id, n: 4 },
  ]);
  expect((await user.refreshCustomData()).n).toBe(3);
  await seeded.deleteOne({ n: 3 });
  expect((await user.refreshCustomData()).n).toBe(4);
});

test("accepts a dotted path as the user id field", async () => {
  const definition = writeDefinition({
    "auth/custom_user_data.json": {
      enabled: true,
      mongo_service_name: "mongodb-atlas",
      database_name: "app",
      collection_name: "people",
      user_id_field: "account.owner",
    },
    "data_sources/mongodb-atlas/app/people/rules.json": {
      roles: [
        {
          name: "own",
          apply_when: { "account.owner": "%%user.id" },
          read: true,
          write: true,
          insert: true,
          delete: true,
          search: true,
        },
      ],
    },
  });
  const user = await logInNew(await openApp({ definition }));
  await user
    .mongoClient("mongodb-atlas")
    .db("app")
    .collection("people")
    .updateOne({ "account.owner": user.id }, { $set: { n: 1 } }, { upsert: true });
  expect(await user.refreshCustomData()).toMatchObject({ n: 1, account: { owner: user.id } });
});
