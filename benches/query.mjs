// Compares queries on raw documents with decoding them:
// `npm run bench:query [-- DOCUMENTS ROUNDS]`.
import { hostTriple, run } from "../scripts/run.mjs";

const example = ["--package", "userkeep-testing", "--example", "query-bench"];
run("cargo", ["run", "--quiet", "--release", ...example, "--target", hostTriple(), "--", ...process.argv.slice(2)]);
