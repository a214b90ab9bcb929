// Links a document that is older than its user. The operator creates it; the user writes the
// own id into it. The role of this definition allows all users everything: only an example may.
const path = require("node:path");
const Realm = require("userkeep");

const settings = {
  id: "link-abcde",
  definition: path.join(__dirname, "userkeep"),
  store: `sqlite:${path.join(__dirname, ".userkeep/link.sqlite")}`,
  baseFilePath: __dirname,
};

async function main() {
  const backend = await Realm.openBackend(settings);
  const people = backend.collection("custom-user-data-database", "custom-user-data");
  const { insertedId } = await people.insertOne({ favoriteColor: "blue" });

  const app = new Realm.App(settings);
  const user = await app.logIn(Realm.Credentials.anonymous());
  const collection = user.mongoClient("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data");
  const linked = await collection.updateOne({ _id: insertedId }, { $set: { userId: user.id } });
  console.log("linked:", linked);
  console.log("custom data:", await user.refreshCustomData());

  await app.deleteUser(user);
  console.log("after the user was deleted:", await people.findOne({ _id: insertedId }));
  await Promise.all([app.close(), backend.close()]);
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
