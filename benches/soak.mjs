// Runs the embedded store at full load, for 600 seconds by default:
// `npm run soak:store [-- SECONDS]`.
import { hostTriple, run } from "../scripts/run.mjs";

const example = ["--package", "userkeep-testing", "--example", "store-soak"];
run("cargo", ["run", "--quiet", "--release", ...example, "--target", hostTriple(), "--", ...process.argv.slice(2)]);
