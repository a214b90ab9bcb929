// Runs the test vectors of a directory against the embedded store:
// `npm run vectors -- DIR [--only TEXT] [--show]`.
import { hostTriple, run } from "./run.mjs";

const cargo = ["run", "--quiet", "--package", "userkeep-testing", "--example", "vectors", "--target", hostTriple()];
run("cargo", [...cargo, "--", ...process.argv.slice(2)]);
