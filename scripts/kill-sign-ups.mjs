// Kills processes at random moments while they sign users up with a user creation function:
// node scripts/kill-sign-ups.mjs [--rounds 200]
//
// No user may lack the writes of the function, no write may lack its user, and no acknowledged
// user may be lost. The last line is `N passed, N failed`, where each round counts.
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { deserialize } from "bson";
import Realm from "userkeep";

const SCRIPT = fileURLToPath(import.meta.url);
const ID = "sign-ups";
const DATABASE = "app";
/** The collections that the function writes to. */
const WRITTEN = ["first", "second"];
/** The longest time in milliseconds after the first user at which a process is killed. */
const LONGEST_ROUND = 120;
/** The number of users that a process signs up at once. */
const AT_ONCE = 6;

const CREATION = `exports = async (user) => {
  const db = context.services.get("mongodb-atlas").db("${DATABASE}");
  await db.collection("first").insertOne({ userId: user.id });
  await db.collection("counters").updateOne({ _id: "users" }, { $inc: { n: 1 } }, { upsert: true });
  await db.collection("second").insertOne({ userId: user.id });
};`;

function writeDefinition(directory) {
  const providers = {
    "anon-user": { name: "anon-user", type: "anon-user", disabled: false },
    "local-userpass": { name: "local-userpass", type: "local-userpass", config: { autoConfirm: true } },
  };
  const customData = {
    enabled: true,
    mongo_service_name: "mongodb-atlas",
    database_name: DATABASE,
    collection_name: "first",
    user_id_field: "userId",
    on_user_creation_function_name: "creation",
  };
  const files = {
    "auth/providers.json": JSON.stringify(providers),
    "auth/custom_user_data.json": JSON.stringify(customData),
    "data_sources/mongodb-atlas/config.json": JSON.stringify({ name: "mongodb-atlas", type: "mongodb-atlas" }),
    "functions/config.json": JSON.stringify([{ name: "creation", private: true }]),
    "functions/creation.js": CREATION,
  };
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(directory, name)), { recursive: true });
    fs.writeFileSync(path.join(directory, name), text);
  }
}

const optionsOf = (directory) => ({
  id: ID,
  definition: path.join(directory, "definition"),
  store: `sqlite:${path.join(directory, "store.sqlite")}`,
  logger: null,
});

/** Signs users up until the process is killed, and prints each acknowledged one. */
async function signUp(directory, round) {
  const metadata = { mode: Realm.MetadataMode.InMemory };
  const app = new Realm.App({ ...optionsOf(directory), metadata });
  let number = 0;
  const one = async () => {
    // Registrations hash a password, so only some of the users have one.
    if (number++ % 10 === 0) {
      const email = `${round}-${number}@example.com`;
      await app.emailPasswordAuth.registerUser({ email, password: "passw0rd" });
      // A single write, so that a line is complete or missing.
      fs.writeSync(1, `${email}\n`);
    } else {
      const user = await app.logIn(Realm.Credentials.anonymous(false));
      if (user.customData.userId !== user.id) {
        fs.writeSync(1, `no custom data ${user.id}\n`);
      }
      fs.writeSync(1, `${user.id}\n`);
    }
  };
  const all = async () => {
    for (;;) {
      await one();
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, all));
}

/** Runs a process until it is killed, and returns the users that it acknowledged. */
async function killed(directory, round) {
  const args = [SCRIPT, "--directory", directory, "--round", String(round)];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  await new Promise((resolve) => {
    child.stdout.on("data", (data) => {
      if (output === "") {
        setTimeout(() => child.kill("SIGKILL"), Math.random() * LONGEST_ROUND);
      }
      output += data;
    });
    child.on("close", resolve);
  });
  return output.slice(0, output.lastIndexOf("\n")).split("\n");
}

/** Reads the documents of a collection from a dump. */
function documentsOf(dump, database, collection) {
  const file = path.join(dump, database, `${collection}.bson`);
  const bytes = fs.existsSync(file) ? fs.readFileSync(file) : Buffer.alloc(0);
  const documents = [];
  for (let offset = 0; offset < bytes.length; ) {
    const size = bytes.readInt32LE(offset);
    documents.push(deserialize(bytes.subarray(offset, offset + size)));
    offset += size;
  }
  return documents;
}

/** Compares the store with the acknowledged users. Returns what is wrong, as texts. */
async function problemsOf(directory, acknowledged) {
  const backend = await Realm.openBackend(optionsOf(directory));
  const dump = fs.mkdtempSync(path.join(directory, "dump-"));
  await backend.export(dump);
  await backend.close();
  const users = documentsOf(dump, `userkeep_${ID}`, "users");
  const ids = new Set(users.map(({ _id }) => _id.toHexString()));
  const known = new Set([...ids, ...users.map(({ data }) => data.email)]);
  const problems = acknowledged.filter((user) => !known.has(user)).map((user) => `acknowledged and lost: ${user}`);
  for (const collection of WRITTEN) {
    const written = documentsOf(dump, DATABASE, collection).map(({ userId }) => userId);
    problems.push(...written.filter((id) => !ids.has(id)).map((id) => `${collection} without its user: ${id}`));
    const found = new Set(written);
    problems.push(...[...ids].filter((id) => !found.has(id)).map((id) => `a user without ${collection}: ${id}`));
    if (found.size !== written.length) {
      problems.push(`${collection} has ${written.length - found.size} documents twice`);
    }
  }
  const count = documentsOf(dump, DATABASE, "counters")[0]?.n ?? 0;
  if (count !== ids.size) {
    problems.push(`the counter is ${count} for ${ids.size} users`);
  }
  fs.rmSync(dump, { recursive: true });
  return { problems, users: ids.size };
}

async function main(rounds) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-kills-"));
  writeDefinition(path.join(directory, "definition"));
  const acknowledged = [];
  let failed = 0;
  let users = 0;
  try {
    for (let round = 1; round <= rounds; round++) {
      acknowledged.push(...(await killed(directory, round)));
      const found = await problemsOf(directory, acknowledged);
      users = found.users;
      if (found.problems.length > 0) {
        failed += 1;
        console.log(`round ${round}: ${found.problems.slice(0, 5).join("; ")}`);
      }
    }
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
  console.log(`${rounds} kills, ${acknowledged.length} users acknowledged, ${users} stored`);
  // A run without users proves nothing.
  failed += acknowledged.length < rounds ? 1 : 0;
  console.log(`${rounds - Math.min(failed, rounds)} passed, ${failed} failed`);
  process.exitCode = failed > 0 ? 1 : 0;
}

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "200" },
    directory: { type: "string" },
    round: { type: "string" },
  },
});
if (values.directory === undefined) {
  await main(Number(values.rounds));
} else {
  await signUp(values.directory, values.round);
}
