// Compares the embedded store with plain SQLite on the same rows:
// `npm run bench:store [-- DOCUMENTS ROUNDS]`.
import { hostTriple, run } from "../scripts/run.mjs";

const example = ["--package", "userkeep-testing", "--example", "store-bench"];
run("cargo", ["run", "--quiet", "--release", ...example, "--target", hostTriple(), "--", ...process.argv.slice(2)]);
