// Measures a log-in with a million sessions in the store:
// `npm run bench:scale [-- --users 100000 --sessions 1000000]`.
// Uses the server of MONGODB_URI, or else the test server.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { hostTriple, run } from "../scripts/run.mjs";
import { start, stop } from "../scripts/test-server.mjs";

const directory = fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-scale-"));
const uri = process.env.MONGODB_URI ?? (await start(directory));
const cargo = ["run", "--release", "--quiet", "--package", "userkeep-testing", "--example", "scale"];
run("cargo", [...cargo, "--target", hostTriple(), "--", ...process.argv.slice(2)], {
  env: { ...process.env, MONGODB_URI: uri },
});
await stop(directory);
fs.rmSync(directory, { recursive: true, force: true });
