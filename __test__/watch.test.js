"use strict";

const {
  MODE,
  Realm,
  STORE,
  collectionFile,
  customDataOf,
  logInNew,
  openApp,
  openDefinition,
  openEmbedded,
  openBackend,
  openKept,
  preImages,
  rulesFile,
  temporaryDirectory,
  writeDefinition,
} = require("./helpers.js");

const { ObjectId, Timestamp } = Realm.BSON;

const own = [{ public: true }, { userId: "%%user.id" }, { writer: "%%user.id" }];

/**
 * A role that lets users read and write public documents, and those that they own or have written.
 */
const readPublic = {
  name: "public",
  apply_when: {},
  document_filters: { read: { "%or": own }, write: { "%or": own } },
  read: true,
  write: true,
};

const collectionOf = (user, name = "things") => user.mongoClient("mongodb-atlas").db("app").collection(name);

/** Resolves like a promise, or to "nothing came" after some milliseconds. */
const soon = (promise, milliseconds = 10_000) =>
  Promise.race([promise, new Promise((resolve) => setTimeout(resolve, milliseconds, "nothing came").unref())]);

/** Returns a resume token after all earlier writes and before all later ones. */
async function placeOf(collection) {
  const markers = collection.watch({ filter: { operationType: "insert" } });
  const inserted = [];
  let next = markers.next();
  // Over HTTP, a client cannot tell when the stream has begun: markers before that cause no event.
  do {
    inserted.push((await collection.insertOne({ public: true })).insertedId);
  } while ((await soon(next, 200)) === "nothing came");
  for (;;) {
    const { value } = await next;
    if (value.documentKey._id.equals(inserted.at(-1))) {
      await markers.return();
      return value._id;
    }
    next = markers.next();
  }
}

/** Returns the next `count` events of a stream. */
async function take(stream, count) {
  const events = [];
  while (events.length < count) {
    const { value, done } = await soon(stream.next());
    expect(done).toBe(false);
    events.push(value);
  }
  return events;
}

const isSilent = async (stream) => (await soon(stream.next(), 300)) === "nothing came";

async function open(role = readPublic) {
  const definition = writeDefinition({
    [rulesFile("app", "things")]: { database: "app", collection: "things", roles: [role] },
    [collectionFile("app", "things")]: preImages,
  });
  const app = await openApp({ definition });
  return { app, user: await logInNew(app) };
}

describe("watch", () => {
  test("reports each change like MongoDB", async () => {
    const { user } = await open();
    const collection = collectionOf(user);
    const stream = collection.watch({ resumeAfter: await placeOf(collection) });
    const _id = new ObjectId();
    await collection.insertOne({ _id, public: true, n: 1, tags: ["a"] });
    await collection.updateOne({ _id }, { $set: { n: 2 }, $push: { tags: "b" } });
    await collection.updateOne({ _id }, { $set: { n: 2 } });
    await collection.updateOne({ _id }, { $unset: { n: 1 } });
    await collection.findOneAndReplace({ _id }, { public: true, whole: "%\r\n\u2028ä" });
    await collection.updateOne({ _id: 7 }, { $set: { public: true } }, { upsert: true });
    await collection.deleteOne({ _id });
    const events = await take(stream, 6);
    expect(await isSilent(stream)).toBe(true);
    for (const event of events) {
      expect(event._id).toEqual({ _data: expect.any(String) });
      expect(event.clusterTime).toBeInstanceOf(Timestamp);
      expect(event.ns).toEqual({ db: "app", coll: "things" });
    }
    const plain = events.map(({ _id, clusterTime, ns, ...rest }) => rest);
    expect(plain).toEqual([
      { operationType: "insert", documentKey: { _id }, fullDocument: { _id, public: true, n: 1, tags: ["a"] } },
      {
        operationType: "update",
        documentKey: { _id },
        updateDescription: { updatedFields: { n: 2, "tags.1": "b" }, removedFields: [] },
        fullDocument: { _id, public: true, n: 2, tags: ["a", "b"] },
      },
      {
        operationType: "update",
        documentKey: { _id },
        updateDescription: { updatedFields: {}, removedFields: ["n"] },
        fullDocument: { _id, public: true, tags: ["a", "b"] },
      },
      { operationType: "replace", documentKey: { _id }, fullDocument: { _id, public: true, whole: "%\r\n\u2028ä" } },
      { operationType: "insert", documentKey: { _id: 7 }, fullDocument: { _id: 7, public: true } },
      { operationType: "delete", documentKey: { _id } },
    ]);
  });

  test("reports only changes that match a filter or some ids", async () => {
    const { user } = await open();
    const collection = collectionOf(user);
    const resumeAfter = await placeOf(collection);
    const filtered = collection.watch({
      filter: { operationType: "insert", $or: [{ "fullDocument.type": "perennial" }, { "documentKey._id": 5 }] },
      resumeAfter,
    });
    const ids = collection.watch({ ids: [1, 3, "x"], resumeAfter });
    const types = ["perennial", "annual", "perennial", "annual", "annual"];
    await collection.insertMany(types.map((type, place) => ({ _id: place + 1, type, public: true })));
    await collection.updateMany({ type: "perennial" }, { $set: { seen: true } });
    await collection.deleteMany({ _id: { $gt: 2 } });
    expect((await take(filtered, 3)).map(({ documentKey }) => documentKey._id)).toEqual([1, 3, 5]);
    const seen = (await take(ids, 5)).map(({ operationType, documentKey }) => [operationType, documentKey._id]);
    expect(seen).toEqual([
      ["insert", 1],
      ["insert", 3],
      ["update", 1],
      ["update", 3],
      ["delete", 3],
    ]);
    expect(await isSilent(filtered)).toBe(true);
    expect(await isSilent(ids)).toBe(true);
  });

  test("is a generator that ends with a loop, and with return() while it waits", async () => {
    const { user } = await open();
    const collection = collectionOf(user);
    const resumeAfter = await placeOf(collection);
    await collection.insertMany([1, 2, 3].map((_id) => ({ _id, public: true })));
    const seen = [];
    const stream = collection.watch({ resumeAfter });
    for await (const { documentKey } of stream) {
      seen.push(documentKey._id);
      if (seen.length === 2) {
        break;
      }
    }
    expect(seen).toEqual([1, 2]);
    expect(await stream.next()).toEqual({ done: true, value: undefined });
    const waiting = collection.watch();
    const nexts = [waiting.next(), waiting.next()];
    expect(await waiting.return("value")).toEqual({ done: true, value: "value" });
    expect(await soon(Promise.all(nexts))).toEqual(Array(2).fill({ done: true, value: undefined }));
    await expect(collection.watch().throw(new Error("mine"))).rejects.toThrow("mine");
    expect(await collection.watch().return()).toEqual({ done: true, value: undefined });
  });

  test("resolves concurrent calls of next() in order", async () => {
    const { user } = await open();
    const collection = collectionOf(user);
    const stream = collection.watch({ resumeAfter: await placeOf(collection) });
    const nexts = [stream.next(), stream.next(), stream.next()];
    await collection.insertMany([1, 2, 3].map((_id) => ({ _id, public: true })));
    expect((await Promise.all(nexts)).map(({ value }) => value.documentKey._id)).toEqual([1, 2, 3]);
  });

  test("ends when the user logs out, is removed or deleted, and when the app is closed", async () => {
    const { app, user } = await open();
    const others = [await logInNew(app), await logInNew(app), await logInNew(app)];
    const waiting = [user, ...others].map((each) => collectionOf(each).watch().next());
    const ended = { done: true, value: undefined };
    await user.logOut();
    expect(await soon(waiting[0])).toEqual(ended);
    await app.removeUser(others[0]);
    expect(await soon(waiting[1])).toEqual(ended);
    await app.deleteUser(others[1]);
    expect(await soon(waiting[2])).toEqual(ended);
    expect(await soon(waiting[3], 100)).toBe("nothing came");
    await app.close();
    expect(await soon(waiting[3])).toEqual(ended);
  });

  test("rejects if the user is logged out, if no rule applies, or if an option is invalid", async () => {
    const { user } = await open();
    const collection = collectionOf(user);
    const first = (options) => collection.watch(options).next();
    await expect(first({ filter: { $who: 1 } })).rejects.toThrow("unknown top level operator: $who.");
    await expect(first({ filter: { "fullDocument.a": { $regex: "^a" } } })).rejects.toThrow("$regex");
    await expect(first({ resumeAfter: {} })).rejects.toMatchObject({ serverCode: 260 });
    await expect(first({ resumeAfter: { _data: "00" } })).rejects.toMatchObject({ serverCode: 260 });
    expect(() => collection.watch({ filter: 1 })).toThrow("Expected 'filter' to be an object, got a number");
    expect(() => collection.watch({ ids: {} })).toThrow("Expected 'ids' to be an array, got an object");
    const without = collectionOf(user, "others").watch();
    await expect(without.next()).rejects.toThrow("no rule exists for namespace 'app.others'");
    expect(await without.next()).toEqual({ done: true, value: undefined });
    const reserved = user.mongoClient("mongodb-atlas").db("userkeep_test-app").collection("sessions");
    await expect(reserved.watch().next()).rejects.toThrow("no rule exists for namespace 'userkeep_test-app.sessions'");
    await user.logOut();
    await expect(first()).rejects.toThrow("Request failed: Unauthorized (401)");
  });
});

describe("permissions of events", () => {
  test("are read permissions on the version in each event", async () => {
    const { app, user } = await open();
    const other = await logInNew(app);
    const collection = collectionOf(other);
    const stream = collectionOf(user).watch({ resumeAfter: await placeOf(collectionOf(user)) });
    const writer = other.id;
    await collection.insertOne({ _id: "hidden", writer });
    await collection.updateOne({ _id: "hidden" }, { $set: { public: true } });
    await collection.insertOne({ _id: "own", userId: user.id, writer });
    // The user may not read the version with the new owner: no event reports it, nor its deletion.
    await collection.updateOne({ _id: "own" }, { $set: { userId: other.id } });
    await collection.deleteOne({ _id: "own" });
    await collection.deleteOne({ _id: "hidden" });
    const seen = (await take(stream, 3)).map(({ operationType, documentKey }) => [operationType, documentKey._id]);
    expect(seen).toEqual([
      ["update", "hidden"],
      ["insert", "own"],
      ["delete", "hidden"],
    ]);
    expect(await isSilent(stream)).toBe(true);
  });

  test("cannot be bypassed by a filter", async () => {
    const { app, user } = await open();
    const other = await logInNew(app);
    const collection = collectionOf(other);
    const resumeAfter = await placeOf(collectionOf(user));
    const streams = [
      { filter: { "fullDocument.secret": 7 } },
      { ids: ["hidden"] },
      { filter: { "ns.coll": "things" } },
    ];
    const all = streams.map((options) => collectionOf(user).watch({ ...options, resumeAfter }));
    await collection.insertOne({ _id: "hidden", secret: 7, writer: other.id });
    await collection.updateOne({ _id: "hidden" }, { $set: { secret: 8 } });
    await collection.deleteOne({ _id: "hidden" });
    for (const stream of all) {
      expect(await isSilent(stream)).toBe(true);
    }
  });

  test("depend on the custom data at the time of each event", async () => {
    const read = { "%or": [...own, { "%%user.custom_data.reads": true }] };
    const { app, user } = await open({ ...readPublic, document_filters: { ...readPublic.document_filters, read } });
    const other = await logInNew(app);
    const collection = collectionOf(other);
    const stream = collectionOf(user).watch({ resumeAfter: await placeOf(collectionOf(user)) });
    const reads = (value) =>
      customDataOf(user).updateOne({ userId: user.id }, { $set: { userId: user.id, reads: value } }, { upsert: true });
    const add = (_id) => collection.insertOne({ _id, writer: other.id });
    await reads(true);
    await add(1);
    expect((await take(stream, 1))[0].documentKey).toEqual({ _id: 1 });
    await reads(false);
    const next = stream.next();
    await add(2);
    expect(await soon(next, 300)).toBe("nothing came");
    await reads(true);
    await add(3);
    expect((await soon(next)).value.documentKey).toEqual({ _id: 3 });
  });
});

test("a stream can be resumed after any event", async () => {
  const { user } = await open();
  const collection = collectionOf(user);
  const place = await placeOf(collection);
  await collection.insertMany(Array.from({ length: 1200 }, (_, _id) => ({ _id, public: true })));
  const events = await take(collection.watch({ resumeAfter: place }), 1200);
  expect(events.map(({ documentKey }) => documentKey._id)).toEqual(Array.from({ length: 1200 }, (_, _id) => _id));
  for (const from of [0, 599, 1198]) {
    const rest = await take(collection.watch({ resumeAfter: events[from]._id }), 1199 - from);
    expect(rest).toEqual(events.slice(from + 1));
  }
}, 60_000);

describe("a resume token", () => {
  const files = (name) => ({
    [rulesFile("app", name)]: { database: "app", collection: name, roles: [readPublic] },
    [collectionFile("app", name)]: preImages,
  });
  const definition = () => writeDefinition({ ...files("things"), ...files("others") });
  const refused = (collection, resumeAfter) =>
    expect(collection.watch({ resumeAfter }).next()).rejects.toMatchObject({ code: 4311, serverCode: 260 });

  test("is valid for one user and collection, and not for a backend handle", async () => {
    const options = { definition: definition() };
    const directory = temporaryDirectory();
    const app = await openKept(directory, options);
    const users = [await logInNew(app), await logInNew(app)];
    const collection = collectionOf(users[0]);
    const place = await placeOf(collection);
    await collection.insertMany([1, 2].map((_id) => ({ _id, public: true })));
    const [first, second] = await take(collection.watch({ resumeAfter: place }), 2);
    const again = await take(collection.watch({ resumeAfter: place }), 2);
    expect(again).toEqual([first, second]);
    for (const { _data } of [place, first._id, second._id]) {
      expect(_data).toMatch(/^[0-9A-Za-z_-]+$/);
    }
    for (const id of [place, first._id]) {
      await refused(collectionOf(users[1]), id);
      await refused(collectionOf(users[0], "others"), id);
    }
    const backend = await openBackend({ ...options, baseFilePath: directory });
    const own = backend.collection("app", "things");
    await expect(own.watch({ resumeAfter: first._id }).next()).rejects.toMatchObject({ serverCode: 260 });
    const stream = own.watch();
    let next = stream.next();
    // On MongoDB, the stream begins a little later.
    do {
      await collection.insertOne({ public: true });
    } while ((await soon(next, 200)) === "nothing came");
    const ofOperator = (await next).value._id;
    await collection.insertOne({ _id: 3, public: true });
    const rest = own.watch({ resumeAfter: ofOperator });
    do {
      next = await soon(rest.next());
    } while (next.value.documentKey._id !== 3);
    await refused(collection, ofOperator);
    await Promise.all([stream.return(), rest.return()]);
  });

  test("is valid for one app", async () => {
    const options = { definition: definition() };
    const apps = [await openApp(options), await openApp(options)];
    const users = [await logInNew(apps[0]), await logInNew(apps[1])];
    const place = await placeOf(collectionOf(users[0]));
    await placeOf(collectionOf(users[1]));
    await refused(collectionOf(users[1]), place);
  });

  test("is valid after a restart", async () => {
    const options = { definition: definition() };
    const directory = temporaryDirectory();
    let app = await openKept(directory, options);
    const { id } = await logInNew(app);
    const place = await placeOf(collectionOf(app.currentUser));
    await collectionOf(app.currentUser).insertOne({ _id: 1, public: true });
    await app.close();
    app = await openKept(directory, options);
    expect(app.currentUser.id).toBe(id);
    const [event] = await take(collectionOf(app.currentUser).watch({ resumeAfter: place }), 1);
    expect(event.documentKey).toEqual({ _id: 1 });
  });
});

// Embedded stores only: on MongoDB, a stream begins a little later, and the server decides how
// long it keeps events.
const ofEmbeddedStores = MODE === "mongodb" ? () => {} : describe;

ofEmbeddedStores("a stream of an embedded store", () => {
  test("begins with the first call of next()", async () => {
    const app = openEmbedded({ definition: openDefinition() });
    const collection = collectionOf(await logInNew(app));
    // Often, because a thread sometimes holds the connection to memory just after a write.
    for (let n = 1; n < 400; n += 2) {
      const stream = collection.watch();
      await collection.insertOne({ _id: n });
      const next = stream.next();
      await collection.insertOne({ _id: n + 1 });
      expect((await soon(next)).value.documentKey).toEqual({ _id: n + 1 });
      await stream.return();
    }
  });

  test("of a backend handle ignores the rules, and ends when the backend is closed", async () => {
    const backend = await Realm.openBackend({
      id: "test-app",
      definition: openDefinition(),
      store: STORE,
      logger: null,
    });
    const collection = backend.collection("app", "things");
    const stream = collection.watch({ filter: { "fullDocument.name": { $regex: "^a" } } });
    const next = stream.next();
    await collection.insertMany([{ name: "b" }, { name: "a" }]);
    expect((await soon(next)).value.fullDocument.name).toBe("a");
    const last = stream.next();
    await backend.close();
    expect(await soon(last)).toEqual({ done: true, value: undefined });
    expect(() => collection.watch().next()).not.toThrow();
    await expect(collection.watch().next()).rejects.toThrow("The backend has been closed");
  });

  test("cannot resume after changeRetention has removed the event", async () => {
    const definition = openDefinition();
    const app = openEmbedded({ definition, changeRetention: { bytes: 2000 } });
    const collection = collectionOf(await logInNew(app));
    const stream = collection.watch();
    const first = stream.next();
    await collection.insertOne({});
    const { _id } = (await first).value;
    await collection.insertMany(Array.from({ length: 100 }, () => ({ text: "x".repeat(100) })));
    await collection.insertOne({});
    await expect(collection.watch({ resumeAfter: _id }).next()).rejects.toMatchObject({ serverCode: 286 });
    expect(() => openEmbedded({ id: "other", changeRetention: { bytes: -1 } })).toThrow("changeRetention.bytes");
  });
});
