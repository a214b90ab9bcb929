"use strict";

// A flag that must be false. An array with both booleans must not pass the check for `false` and
// also grant what needs `true`.

const { COLLECTION, DATABASE, customDataOf, everything, openWithRules, rulesFile } = require("../helpers.js");

/**
 * Rules that let users write their custom data while a flag is false, and grant more if it is
 * true.
 */
const flagged = (flag) => ({
  [rulesFile(DATABASE, COLLECTION)]: {
    roles: [
      {
        name: "own",
        apply_when: { userId: "%%user.id" },
        document_filters: { read: true, write: { userId: "%%user.id", [flag]: false } },
        ...everything,
      },
    ],
  },
  [rulesFile("db", "secrets")]: {
    roles: [{ name: "admin", apply_when: { [`%%user.custom_data.${flag}`]: true }, ...everything }],
  },
});

test.each([
  ["isAdmin", [{ isAdmin: [false, true] }, { isAdmin: [true, false] }, { isAdmin: [[false], true] }]],
  ["flags.isAdmin", [{ flags: [{ isAdmin: false }, { isAdmin: true }] }, { flags: { isAdmin: [false, true] } }]],
])("%s cannot match both false and true", async (flag, documents) => {
  const { backend, user, collection } = await openWithRules(flagged(flag));
  await backend.collection("db", "secrets").insertOne({ _id: 1 });
  const own = customDataOf(user);
  for (const document of documents) {
    await expect(own.insertOne({ userId: user.id, ...document })).rejects.toThrow("insert not permitted");
  }
  // An earlier version accepted these documents.
  const people = backend.collection(DATABASE, COLLECTION);
  for (const document of documents) {
    await people.insertOne({ userId: user.id, ...document });
    expect(await collection("db", "secrets").find()).toEqual([]);
    await expect(own.updateOne({ userId: user.id }, { $set: { x: 1 } })).rejects.toThrow("update not permitted");
    await people.deleteMany({});
  }
  const honest = (value) => flag.split(".").reduceRight((inner, name) => ({ [name]: inner }), value);
  await own.insertOne({ userId: user.id, ...honest(false) });
  await expect(own.updateOne({ userId: user.id }, { $set: { [flag]: true } })).rejects.toThrow("update not permitted");
  expect(await collection("db", "secrets").find()).toEqual([]);
  await people.updateOne({ userId: user.id }, { $set: { [flag]: true } });
  expect(await collection("db", "secrets").find()).toEqual([{ _id: 1 }]);
});

test("rules on a boolean field match the boolean only, with an index too", async () => {
  const { backend, collection } = await openWithRules({
    [rulesFile("db", "posts")]: { roles: [{ name: "public", apply_when: { public: true }, read: true, write: false }] },
    [rulesFile("db", "drafts")]: {
      roles: [{ name: "not-public", apply_when: { "%%false": { public: true } }, read: true, write: false }],
    },
  });
  const documents = [
    { _id: 1, public: true },
    { _id: 2, public: false },
    { _id: 3, public: [true] },
    { _id: 4, public: [[true]] },
    { _id: 5, public: [false, true] },
    { _id: 6, public: null },
    { _id: 7 },
    { _id: 8, public: "true" },
    { _id: 9, public: [] },
  ];
  for (const [name, ids] of [
    ["posts", [1]],
    ["drafts", [2, 3, 4, 5, 6, 8, 9]],
  ]) {
    await backend.collection("db", name).insertMany(documents);
    await backend.collection("db", name).createIndexes([{ key: { public: 1 } }]);
    const seen = await collection("db", name).find({}, { sort: { _id: 1 } });
    expect(seen.map(({ _id }) => _id)).toEqual(ids);
    expect(await collection("db", name).count()).toBe(ids.length);
    expect(await collection("db", name).count({ public: true })).toBe(name === "posts" ? 1 : 2);
  }
});

test("values of other types match an array that contains them", async () => {
  const { backend, user, collection } = await openWithRules({
    [rulesFile("db", "c")]: { roles: [{ name: "member", apply_when: { members: "%%user.id" }, ...everything }] },
  });
  await backend.collection("db", "c").insertMany([
    { _id: 1, members: ["x", user.id] },
    { _id: 2, members: ["x"] },
  ]);
  expect((await collection("db", "c").find()).map(({ _id }) => _id)).toEqual([1]);
});
