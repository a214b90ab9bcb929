// Compiled, not run: the types of the package in an ES module.
import Realm, {
  App,
  type AppConfiguration,
  BSON,
  Credentials,
  type MongoDB,
  openBackend,
  serve,
  User,
  UserState,
} from "userkeep";

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<_T extends true>(): void {}

type Functions = { sum(a: number, b: number): Promise<number> };
type CustomData = { favoriteColor: string; visits?: number };

const configuration: AppConfiguration = { id: "app", definition: "userkeep", store: "memory:", logger: null };
const app = new App<Functions, CustomData>(configuration);
const user = await app.logIn(Credentials.emailPassword({ email: "a@example.com", password: "passw0rd" }));

same<Equal<typeof user.customData, CustomData>>();
const refreshed = await user.refreshCustomData();
same<Equal<typeof refreshed, CustomData>>();
same<Equal<Awaited<ReturnType<typeof user.functions.sum>>, number>>();
same<Equal<typeof user.state, UserState>>();
same<Equal<(typeof app)["currentUser"], User<Functions, CustomData> | null>>();
const state: "LoggedIn" = UserState.LoggedIn;
const byId: Readonly<Record<string, Realm.User<Functions, CustomData>>> = app.allUsers;

// @ts-expect-error: customData is read-only
user.customData = { favoriteColor: "pink" };
// @ts-expect-error: an id is required
new App({});
// @ts-expect-error: only an app creates users
new User();
// @ts-expect-error: a password is required
Credentials.emailPassword({ email: "a@example.com" });

type Plant = { _id: BSON.ObjectId; name: string };
const plants = user.mongoClient("mongodb-atlas").db("example").collection<Plant>("plants");
const one = await plants.findOne({ name: "fern" }, { projection: { name: 1 }, sort: { name: -1 } });
same<Equal<typeof one, Plant | null>>();
const all = await plants.find();
same<Equal<typeof all, Plant[]>>();
const { insertedId } = await plants.insertOne({ name: "fern" });
same<Equal<typeof insertedId, BSON.ObjectId>>();
const { insertedIds } = await plants.insertMany([{ name: "fern", _id: BSON.ObjectId("63c1b2a1f0e1d2c3b4a59687") }]);
same<Equal<typeof insertedIds, BSON.ObjectId[]>>();
const updated = await plants.updateOne({ name: "fern" }, { $set: { name: "moss" } }, { upsert: true });
same<Equal<typeof updated.upsertedId, BSON.ObjectId | undefined>>();
const count: number = await plants.count({}, { limit: 1 });
// @ts-expect-error: a plant has a name
await plants.insertOne({ colour: "green" });
// @ts-expect-error: the option skip does not exist
await plants.find({}, { skip: 1 });

let last: unknown;
for await (const { _id } of plants.watch({ ids: [new BSON.ObjectId()], resumeAfter: last })) {
  last = _id;
}
plants.watch({ resumeAfter: last });
// @ts-expect-error: ids and filter exclude each other
plants.watch({ ids: [], filter: {} });
for await (const change of plants.watch({ filter: { operationType: "insert" } })) {
  if (change.operationType === "insert") {
    same<Equal<typeof change.fullDocument, Plant>>();
  }
}

const withNew = new BSON.ObjectId("63c1b2a1f0e1d2c3b4a59687");
const without = BSON.ObjectId("63c1b2a1f0e1d2c3b4a59687");
same<Equal<typeof withNew, typeof without>>();
const decimal: BSON.Decimal128 = BSON.Decimal128.fromString("1.5");
BSON.EJSON.stringify({ decimal, count, state, byId });

const backend = await openBackend({
  definition: "userkeep",
  store: "memory:",
  changeRetention: { bytes: 1000 },
  logRetention: { seconds: 60 },
  watchDefinition: true,
  dataSources: { near: "mongodb://localhost" },
});
const carried: { collections: number; written: number } = await backend.migrate("mongodb://localhost", {
  databases: ["app"],
});
void carried;
await backend.backup("copy.sqlite", { onProgress: ({ stage, done, total }) => console.log(stage, done / total) });
const exported: number = await backend.export("dump");
const { written, reported }: { written: number; reported: string[] } = await backend.import("dump", {
  ignoreIndexes: true,
});
const [{ what, isOfIndex }] = await backend.check({ repair: true });
console.log(exported, written, reported, what, isOfIndex);
const entries: Realm.AppLogEntry[] = await backend.admin.logs({ type: ["auth"], from: new Date(), limit: 5 });
const texts: string[] | undefined = entries[0]?.messages?.map(({ text }) => text);
for await (const { requestId, error } of backend.admin.followLogs({ errors: true })) {
  console.log(requestId, error?.length, texts);
}
// @ts-expect-error: a followed log has no limit
backend.admin.followLogs({ limit: 5 });
const ran: Realm.FunctionReport = await backend.admin.runFunction("sum", [1, 2], { user: "6500000000000000000000aa" });
console.log(ran.value, ran.error?.stack, ran.droppedMessages);
const administered = backend.collection<{ _id: number; n: number }>("app", "things");
const made: string[] = await administered.createIndexes([{ key: { n: -1 }, unique: true, expireAfterSeconds: 60 }]);
const [{ name, key }] = await administered.indexes();
const { stage, index }: Realm.Explanation = await administered.explain({ n: { $gt: 1 } }, { sort: { n: 1 }, limit: 2 });
// @ts-expect-error: an index needs a key
await administered.createIndexes([{ name: "nothing" }]);
const seeded: MongoDB.InsertOneResult<unknown> = await backend.collection("db", "c").insertOne({ a: 1, insertedIds });
await backend.close();
await Realm.shutdown();

export { index, key, made, name, seeded, stage };

const server = await serve({
  app: "my-app",
  port: 0,
  tlsCert: "cert.pem",
  tlsKey: "key.pem",
  trustProxy: ["10.0.0.0/8"],
  unlimited: "192.0.2.0/24",
  clientTimeout: 10_000,
  metricsPort: 0,
  functions: { threads: 2, timeLimit: 1000 },
  secrets: { key: "text" },
  logger: (level, text, record) => console.log(level, text, record.request_id),
});
const urls: [string, string | undefined] = [server.url, server.metricsUrl];
const keyId: string = await backend.rotateKeys();
const remote = new App({ id: "my-app", baseUrl: urls[0], timeout: 1000, logger: console });
const ofFunctions: Realm.FunctionConfiguration = { memoryLimit: 64, env: ["TZ"] };
new App({ id: "my-app", functions: ofFunctions, secrets: { key: "text" } });
openBackend({ functions: { threads: 0 }, secrets: {} });
// @ts-expect-error: a time limit is a number
openBackend({ functions: { timeLimit: "1s" } });
// @ts-expect-error: a secret is text
openBackend({ secrets: { key: 1 } });
const called: unknown = await user.callFunction("sum", 1, 2);
const total: number = await user.functions.sum(1, 2);
console.log(called, total);
// @ts-expect-error a port is a number
serve({ port: "3000" });
console.log(keyId, remote.id);
