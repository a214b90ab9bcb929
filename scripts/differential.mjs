// Compares the embedded store with a MongoDB-compatible server on pseudo-random cases:
// `npm run differential -- --seed S --cases N --against mongodb://…`.
import { hostTriple, run } from "./run.mjs";

const cargo = [
  "run",
  "--quiet",
  "--package",
  "userkeep-testing",
  "--example",
  "differential",
  "--target",
  hostTriple(),
];
run("cargo", [...cargo, "--", ...process.argv.slice(2)]);
