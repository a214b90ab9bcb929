// Runs every check and adds up their counts:
// `npm test [-- --install] [-- --shared DIR] [-- --only NAME]`.
//
// The last line is `N passed, N failed`. If requirements are missing, lists them with the commands
// that install them, and exits with 2; with `--install`, installs them first. `--shared DIR` adds
// the checks that read test data from DIR. `--only NAME` runs one check.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { browser, installMissing, missing } from "./requirements.mjs";
import { hostTriple } from "./run.mjs";
import { start, stop } from "./test-server.mjs";

const { values: options } = parseArgs({
  options: { shared: { type: "string" }, only: { type: "string" }, install: { type: "boolean" } },
});
const ROOT = fileURLToPath(new URL("..", import.meta.url));
const TARGET = hostTriple();
const FAILED = { passed: 0, failed: 1 };
/**
 * Time limit of a command in milliseconds. A command that exceeds it fails; the others still run.
 */
const PATIENCE = 20 * 60_000;

function command(name, args) {
  const { status, stdout, stderr, error } = spawnSync(name, args, {
    cwd: ROOT,
    encoding: "utf8",
    maxBuffer: 256 * 1024 * 1024,
    timeout: PATIENCE,
    env: { ...process.env, RUST_BACKTRACE: "0", NODE_ENV: "test" },
  });
  return { ok: !error && status === 0, output: `${stdout ?? ""}${stderr ?? ""}${error ? error.message : ""}` };
}

/** Runs a command that counts as one check. */
function single(name, args) {
  const { ok, output } = command(name, args);
  return { ...(ok ? { passed: 1, failed: 0 } : FAILED), output: ok ? "" : output };
}

function cargoTest() {
  const { ok, output } = command("cargo", ["test", "--workspace", "--target", TARGET]);
  const counts = [...output.matchAll(/^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/gm)];
  const sum = (index) => counts.reduce((total, match) => total + Number(match[index]), 0);
  // An ignored test counts as failed, and so does a run that ended before it printed counts.
  const failed = sum(2) + sum(3);
  return { passed: sum(1), failed: ok ? failed : Math.max(failed, 1), output: ok ? "" : output };
}

/** Runs jest and returns the counts of its report. Skipped tests count as failed. */
function jestRun(args) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-jest-"));
  const report = path.join(directory, "report.json");
  const { ok, output } = command("npx", ["jest", "--ci", "--json", `--outputFile=${report}`, ...args]);
  if (!fs.existsSync(report)) {
    return { ...FAILED, output };
  }
  const result = JSON.parse(fs.readFileSync(report, "utf8"));
  fs.rmSync(directory, { recursive: true });
  const failed = result.numFailedTests + result.numPendingTests + result.numRuntimeErrorTestSuites;
  return { passed: result.numPassedTests, failed: ok ? failed : Math.max(failed, 1), output: ok ? "" : output };
}

/** Number of hostile operations. */
const HOSTILE_OPERATIONS = 20_000;

/** Runs `scripts/hostile.mjs`, and fails if it did not run all operations. */
function hostile() {
  const { ok, output } = command(process.execPath, ["scripts/hostile.mjs", "--operations", `${HOSTILE_OPERATIONS}`]);
  const operations = Number(/^(\d+) operations, /m.exec(output)?.[1]);
  const counts = /^(\d+) passed, (\d+) failed$/m.exec(output);
  if (!counts || operations !== HOSTILE_OPERATIONS) {
    return { ...FAILED, output };
  }
  const [passed, failed] = counts.slice(1).map(Number);
  return { passed, failed: ok ? failed : Math.max(failed, 1), output: ok ? "" : output };
}

/** Runs a script that prints its own counts. */
function counting(args) {
  const { ok, output } = command(process.execPath, args);
  const counts = /^(\d+) passed, (\d+) failed$/m.exec(output);
  if (!counts) {
    return { ...FAILED, output };
  }
  const [passed, failed] = counts.slice(1).map(Number);
  return { passed, failed: ok ? failed : Math.max(failed, 1), output: ok ? "" : output };
}

/** Runs each example twice, as a user does: the second run finds the data of the first. */
function examples() {
  const counts = { passed: 0, failed: 0, output: "" };
  const expectations = {
    "quickstart/index.mjs": [/custom data before: \{\}/, /custom data before: \{\s+_id/],
    "link-existing-document/index.cjs": [
      /after the user was deleted: \{\s+_id/,
      /linked: \{ matchedCount: 1, modifiedCount: 1 \}/,
    ],
    "watch-for-changes/index.mjs": [
      /insert pink \nupdate blue \{ favoriteColor: 'blue' \}\ntaken up again: update green/,
      /update pink \{ favoriteColor: 'pink' \}\nupdate blue .*\ntaken up again: update green/,
    ],
    "write-with-a-function/index.mjs": [
      /user: insert not permitted\n.*from 1 to 10\nembedded: a call: 5\n[\s\S]*over HTTP: custom data: \{ points: 10 \}/,
      /embedded: custom data: \{ points: 15 \}\n[\s\S]*over HTTP: custom data: \{ points: 20 \}/,
    ],
  };
  for (const [example, expected] of Object.entries(expectations)) {
    fs.rmSync(path.join(ROOT, "examples", path.dirname(example), ".userkeep"), { recursive: true, force: true });
    for (const pattern of expected) {
      const { ok, output } = command(process.execPath, [path.join("examples", example)]);
      const passed = ok && pattern.test(output);
      counts[passed ? "passed" : "failed"] += 1;
      counts.output += passed ? "" : `${example} did not print ${pattern}:\n${output}`;
    }
  }
  const tests = ["jest", "--config", "examples/test-functions-and-rules/jest.config.js"];
  const { ok, output } = command("npx", tests);
  counts[ok ? "passed" : "failed"] += 1;
  counts.output += ok ? "" : output;
  return counts;
}

const checks = {
  "cargo fmt": () => single("cargo", ["fmt", "--check"]),
  clippy: () => single("cargo", ["clippy", "--workspace", "--all-targets", "--target", TARGET, "--", "-D", "warnings"]),
  "cargo test": cargoTest,
  biome: () => single("npx", ["biome", "check", "--error-on-warnings", "."]),
  prose: () => single(process.execPath, ["scripts/prose.mjs"]),
  spelling: () => single("npx", ["cspell", "lint", "--no-progress", "--no-summary", "."]),
  dependencies: () => counting(["scripts/dependencies.mjs"]),
  types: () => single("npx", ["tsc", "-p", "__test__/types"]),
  "examples in the declarations": () => counting(["scripts/doc-examples.mjs"]),
  tour: () => counting(["scripts/tour.mjs"]),
  jest: () => jestRun(["--selectProjects", "embedded", "remote"]),
  // In one process, because the suites on MongoDB share a server.
  "jest on MongoDB": () => jestRun(["--selectProjects", "mongodb", "--runInBand"]),
  hostile,
  "functions that hang": () => counting(["scripts/soak-functions.mjs", "--calls", "500"]),
  examples,
  guides: () => counting(["scripts/guides.mjs"]),
  package: () => counting(["scripts/package-tests/run.mjs"]),
};
/** Number of cases of each seed that are compared with the other server. */
const CASES = 20_000;

/**
 * Compares the embedded store with another server, always on the same cases. Among several hundred
 * thousand new cases there may be an unlisted deviation of the other server, which must not block
 * a change. To search for faults, use other seeds: `npm run differential -- --seed …`.
 */
function differential() {
  const counts = { passed: 0, failed: 0, output: "" };
  for (const seed of [1, 2]) {
    // `cargo test` has built the program.
    const arguments_ = ["--seed", `${seed}`, "--cases", `${CASES}`, "--against", process.env.MONGODB_URI ?? ""];
    const { ok, output } = command(`target/${TARGET}/debug/examples/differential`, arguments_);
    counts[ok ? "passed" : "failed"] += 1;
    counts.output += ok ? "" : output;
  }
  return counts;
}

/**
 * Runs `work` with `MONGODB_URI`. If it is not set, starts a test server, and stops it afterwards.
 */
async function withServer(work) {
  if (process.env.MONGODB_URI) {
    return work();
  }
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-server-"));
  try {
    process.env.MONGODB_URI = await start(directory);
  } catch (error) {
    // The checks that need the server will fail with their own messages.
    console.error(error.message);
  }
  try {
    return await work();
  } finally {
    await stop(directory);
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

/** Runs the checks one after the other; returns the sums of their counts. */
function runChecks() {
  const total = { passed: 0, failed: 0 };
  for (const [name, run] of Object.entries(checks)) {
    if (options.only && options.only !== name) {
      continue;
    }
    const start = Date.now();
    const { passed, failed, output } = run();
    if (output) {
      console.log(output);
    }
    const seconds = ((Date.now() - start) / 1000).toFixed(0);
    console.log(`${failed ? "FAILED" : "ok"}  ${name}: ${passed} of ${passed + failed} (${seconds} s)`);
    total.passed += passed;
    total.failed += failed;
  }
  return total;
}

if (options.shared) {
  checks.differential = differential;
  // `cargo test` has built the program.
  checks.vectors = () => single(`target/${TARGET}/debug/examples/vectors`, [path.resolve(options.shared, "vectors")]);
  checks.definitions = () =>
    single(process.execPath, ["scripts/check-definitions.mjs", path.join(options.shared, "definitions")]);
}

process.chdir(ROOT);
const unmet = options.install ? installMissing() : missing();
if (unmet.length > 0) {
  console.error("requirements of the tests are missing:");
  for (const { name, how } of unmet) {
    console.error(`  ${name}: ${how}`);
  }
  if (!options.install) {
    console.error("`npm test -- --install` installs all of it except Rust");
  }
  process.exit(2);
}
process.env.CHROMIUM_PATH = browser();
const total = await withServer(runChecks);
console.log(`${total.passed} passed, ${total.failed} failed`);
process.exitCode = total.failed || !total.passed ? 1 : 0;
