// Loads every app definition in a directory, and prints the reasons if one is rejected:
// `node scripts/check-definitions.mjs DIR`. Exits with 1 if a rejection does not name a file.
import fs from "node:fs";
import path from "node:path";
import Realm from "userkeep";

const [root] = process.argv.slice(2);
const directories = fs.readdirSync(root, { withFileTypes: true }).filter((entry) => entry.isDirectory());
let failed = directories.length === 0;
for (const { name } of directories) {
  const definition = path.join(root, name);
  try {
    await new Realm.App({ id: `check-${name}`, definition, store: "memory:", logger: null }).close();
    console.log(`${name}: loads`);
  } catch (error) {
    const reasons = error.message.split("\n").slice(1);
    const named =
      reasons.length > 0 &&
      reasons.every((reason) => fs.existsSync(path.join(definition, reason.trim().split(/:| at /)[0])));
    failed ||= !named;
    console.log(`${name}: rejected${named ? "" : " WITHOUT A REASON"}\n${named ? reasons.join("\n") : error.stack}`);
  }
}
process.exitCode = failed ? 1 : 0;
