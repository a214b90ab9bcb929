// Custom data that its user may read and not write: a system function writes it. The same program
// runs on a backend in this process and over HTTP, on one store.
import { fileURLToPath } from "node:url";
import Realm, { serve } from "userkeep";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const id = "functions-abcde";
const backend = { definition: here("userkeep"), baseFilePath: here(".") };

async function earnPoints(place, app) {
  const credentials = { email: "ada@example.com", password: "passw0rd" };
  await app.emailPasswordAuth.registerUser(credentials).catch((error) => {
    if (error.errorCode !== "AccountNameInUse") throw error;
  });
  const user = await app.logIn(Realm.Credentials.emailPassword(credentials));
  const collection = user.mongoClient("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data");

  const denied = await collection.insertOne({ userId: user.id, points: 1000 }).catch((error) => error.message);
  console.log(`${place}: a write of the user: ${denied}`);
  const invalid = await user.functions.addPoints(1000).catch((error) => error.message);
  console.log(`${place}: a call with a wrong argument: ${invalid}`);
  console.log(`${place}: a call:`, await user.functions.addPoints(5));
  const { points } = await user.refreshCustomData();
  console.log(`${place}: custom data:`, { points });
}

const embedded = new Realm.App({ id, ...backend });
await earnPoints("embedded", embedded);
await embedded.close();

const server = await serve({ app: id, ...backend, port: 0, logger: null });
const metadata = { mode: Realm.MetadataMode.InMemory };
const remote = new Realm.App({ id, baseUrl: server.url, metadata });
await earnPoints("over HTTP", remote);
await remote.close();
await server.close();
