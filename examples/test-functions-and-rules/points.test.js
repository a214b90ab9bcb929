"use strict";

// Tests of the functions and the rules of ../write-with-a-function with jest. Each test has a
// backend of its own in memory, and its users come through the client, as those of the app do:
//
//     npx jest --config examples/test-functions-and-rules/jest.config.js
const path = require("node:path");
const Realm = require("userkeep");

const definition = path.join(__dirname, "../write-with-a-function/userkeep");
let app;
let backend;
let count = 0;

beforeEach(async () => {
  const options = { id: `test-${++count}`, definition, store: "memory:", logger: null };
  app = new Realm.App(options);
  // The operator's handle writes what the rules forbid, and reads the log.
  backend = await Realm.openBackend(options);
});

afterEach(async () => {
  await backend.close();
  await app.close();
});

/** Registers a user, and logs the user in. */
async function register(email) {
  const credentials = { email, password: "passw0rd" };
  await app.emailPasswordAuth.registerUser(credentials);
  return app.logIn(Realm.Credentials.emailPassword(credentials));
}

const customData = (user) =>
  user.mongoClient("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data");

describe("addPoints", () => {
  test("adds points to the custom data of the caller", async () => {
    const ada = await register("ada@example.com");
    expect(await ada.functions.addPoints(5)).toBe(5);
    expect(await ada.functions.addPoints(2)).toBe(7);
    expect(await ada.refreshCustomData()).toMatchObject({ userId: ada.id, points: 7 });
  });

  test.each([0, 11, 1.5, "5", null])("refuses %p", async (points) => {
    const ada = await app.logIn(Realm.Credentials.anonymous());
    await expect(ada.functions.addPoints(points)).rejects.toThrow("points must be a whole number from 1 to 10");
    expect(await customData(ada).count()).toBe(0);
  });

  test("leaves an entry in the log", async () => {
    const ada = await app.logIn(Realm.Credentials.anonymous());
    await expect(ada.functions.addPoints(11)).rejects.toThrow("points must be");
    // The app writes its entries within about 100 ms.
    let entries = [];
    while (entries.length === 0) {
      entries = await backend.admin.logs({ errors: true, user: ada.id });
    }
    expect(entries).toMatchObject([{ name: "addPoints", arguments: [11], user: ada.id }]);
    expect(entries[0].hook).toBeUndefined();
    expect(entries[0].stack).toMatch(/addPoints\.js:5:/);
  });
});

describe("the rules of custom data", () => {
  test("let a user read the own document and no other", async () => {
    const [ada, bob] = [await register("ada@example.com"), await register("bob@example.com")];
    const all = backend.collection("custom-user-data-database", "custom-user-data");
    await all.insertMany([
      { userId: ada.id, points: 1 },
      { userId: bob.id, points: 2 },
    ]);
    expect(await customData(ada).find({}, { projection: { _id: 0 } })).toEqual([{ userId: ada.id, points: 1 }]);
    expect(await customData(ada).findOne({ userId: bob.id })).toBeNull();
  });

  test("let no user write", async () => {
    const ada = await app.logIn(Realm.Credentials.anonymous());
    await ada.functions.addPoints(1);
    await expect(customData(ada).insertOne({ userId: ada.id, points: 100 })).rejects.toThrow("insert not permitted");
    const { modifiedCount } = await customData(ada)
      .updateOne({ userId: ada.id }, { $set: { points: 100 } })
      .catch(() => ({ modifiedCount: 0 }));
    expect(modifiedCount).toBe(0);
    expect(await ada.refreshCustomData()).toMatchObject({ points: 1 });
  });
});
