// The documented use of custom user data: log in, read, write, refresh. The second run finds the
// user and the data of the first.
import { fileURLToPath } from "node:url";
import Realm, { BSON } from "userkeep";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const app = new Realm.App({ id: "quickstart-abcde", definition: here("userkeep"), baseFilePath: here(".") });

const email = "ada@example.com";
const password = "passw0rd";
await app.emailPasswordAuth.registerUser({ email, password }).catch((error) => {
  if (error.errorCode !== "AccountNameInUse") throw error;
});
const user = await app.logIn(Realm.Credentials.emailPassword({ email, password }));

console.log("custom data before:", user.customData);

const collection = user.mongoClient("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data");
await collection.updateOne(
  { userId: user.id },
  { $set: { favoriteColor: "pink", updatedAt: new Date(), balance: BSON.Decimal128.fromString("12.50") } },
  { upsert: true },
);

console.log("custom data has not changed:", user.customData);
console.log("custom data after:", await user.refreshCustomData());
