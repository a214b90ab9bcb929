// The documented use of change events: follow a collection while it is written, and resume after
// an event. The definition is the quickstart's: each user reads and writes only the own documents.
import { fileURLToPath } from "node:url";
import Realm from "userkeep";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const app = new Realm.App({ id: "watch-abcde", definition: here("../quickstart/userkeep"), baseFilePath: here(".") });
const user = await app.logIn(Realm.Credentials.anonymous());
const collection = user.mongoClient("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data");

const isColor = { "fullDocument.favoriteColor": { $exists: true } };
const changes = collection.watch({ filter: isColor });
// The stream starts with the first call of next().
let next = changes.next();

const set = (favoriteColor) =>
  collection.updateOne({ userId: user.id }, { $set: { userId: user.id, favoriteColor } }, { upsert: true });
for (const color of ["pink", "blue", "green"]) {
  await set(color);
}

let last;
for (let count = 0; count < 2; count++) {
  const { value: change } = await next;
  console.log(change.operationType, change.fullDocument.favoriteColor, change.updateDescription?.updatedFields ?? "");
  last = change._id;
  next = changes.next();
}
await changes.return();

for await (const change of collection.watch({ filter: isColor, resumeAfter: last })) {
  console.log("taken up again:", change.operationType, change.fullDocument.favoriteColor);
  break;
}
await collection.updateOne({ userId: user.id }, { $set: { favoriteColor: "none" } });
await app.close();
