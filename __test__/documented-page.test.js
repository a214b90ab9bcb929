"use strict";

// The calls of the page "Access Custom User Data - Node.js SDK", in the order of the page.

const { BSON } = require("..");
const {
  COLLECTION,
  DATABASE,
  Realm,
  customDataOf,
  logInNew,
  openApp,
  openBackend,
  openDefinition,
  openKept,
  temporaryDirectory,
} = require("./helpers.js");

test("reads custom data, writes it with an upsert, and refreshes it", async () => {
  const app = await openApp();
  await logInNew(app);

  expect(app.currentUser.customData).toEqual({});

  const user = app.currentUser;
  const mongo = user.mongoClient("mongodb-atlas");
  const collection = mongo.db("custom-user-data-database").collection("custom-user-data");
  const filter = { userId: user.id };
  const inserted = await collection.updateOne(filter, { $set: { favoriteColor: "pink" } }, { upsert: true });
  expect(inserted).toEqual({ matchedCount: 0, modifiedCount: 0, upsertedId: expect.any(BSON.ObjectId) });
  expect(app.currentUser.customData).toEqual({});

  const updatedCustomUserData = await user.refreshCustomData();
  expect(updatedCustomUserData).toEqual({ _id: inserted.upsertedId, userId: user.id, favoriteColor: "pink" });
  expect(app.currentUser.customData).toEqual(updatedCustomUserData);

  const again = await collection.updateOne(filter, { $set: { favoriteColor: "blue" } }, { upsert: true });
  expect(again).toEqual({ matchedCount: 1, modifiedCount: 1 });
  expect(await collection.updateOne(filter, { $set: { favoriteColor: "blue" } }, { upsert: true })).toEqual({
    matchedCount: 1,
    modifiedCount: 0,
  });
  expect(user.customData.favoriteColor).toBe("pink");
  expect((await user.refreshCustomData()).favoriteColor).toBe("blue");
});

test("links an existing document if the rules allow it, and keeps it when the user is deleted", async () => {
  const directory = temporaryDirectory();
  const definition = openDefinition();
  const app = await openKept(directory, { definition });
  const backend = await openBackend({ definition, baseFilePath: directory });
  const seeded = backend.collection(DATABASE, COLLECTION);
  await seeded.insertOne({ _id: BSON.ObjectId("63c1b2a1f0e1d2c3b4a59687"), favoriteColor: "blue" });

  const user = await logInNew(app);
  const collection = customDataOf(user);
  const filter = { _id: new BSON.ObjectId("63c1b2a1f0e1d2c3b4a59687") };
  expect(await collection.updateOne(filter, { $set: { userId: user.id } })).toEqual({
    matchedCount: 1,
    modifiedCount: 1,
  });
  expect(await collection.findOne(filter)).toMatchObject({ userId: user.id });
  await user.refreshCustomData();
  expect(app.currentUser.customData.favoriteColor).toBe("blue");

  const { id } = app.currentUser;
  await app.deleteUser(app.currentUser);
  expect(Object.keys(app.allUsers)).not.toContain(id);
  expect(await seeded.findOne(filter)).toMatchObject({ userId: id, favoriteColor: "blue" });
});

test("the quickstart's role lets a user neither link nor create another user's document", async () => {
  const directory = temporaryDirectory();
  const app = await openKept(directory);
  const backend = await openBackend({ definition: require("./helpers.js").QUICKSTART, baseFilePath: directory });
  const seeded = backend.collection(DATABASE, COLLECTION);
  const { insertedId } = await seeded.insertOne({ favoriteColor: "blue" });
  const user = await logInNew(app);
  const linking = customDataOf(user).updateOne({ _id: insertedId }, { $set: { userId: user.id } });
  await expect(linking).rejects.toMatchObject({ message: "update not permitted", code: 4314 });
  expect(await seeded.findOne({ _id: insertedId })).toEqual({ _id: insertedId, favoriteColor: "blue" });

  // Users can neither give their document away nor insert one for another user.
  const own = customDataOf(user);
  await own.insertOne({ userId: user.id });
  await expect(own.updateOne({ userId: user.id }, { $set: { userId: "another-user" } })).rejects.toThrow(
    "update not permitted",
  );
  await expect(own.insertOne({ userId: "another-user" })).rejects.toThrow("insert not permitted");
  await expect(own.insertOne({ userId: [user.id, "another-user"] })).resolves.toBeDefined();
  expect((await user.refreshCustomData()).userId).toBe(user.id);
});

test("the user and the custom data survive a restart", async () => {
  const directory = temporaryDirectory();
  const app = await openKept(directory);
  const user = await logInNew(app);
  await customDataOf(user).insertOne({ userId: user.id, favoriteColor: "pink" });
  await user.refreshCustomData();
  const { id, accessToken, refreshToken, deviceId, identities, profile, customData } = user;
  await app.close();

  const reopened = await openKept(directory);
  expect(reopened.currentUser).toMatchObject({
    id,
    accessToken,
    refreshToken,
    deviceId,
    identities,
    profile,
    customData,
  });
  expect(reopened.currentUser.isLoggedIn).toBe(true);
  expect((await reopened.currentUser.refreshCustomData()).favoriteColor).toBe("pink");
  expect(await reopened.logIn(Realm.Credentials.emailPassword(profile.email, "passw0rd"))).toMatchObject({ id });
});
