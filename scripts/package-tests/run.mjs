// Installs the packed tarballs as a user does, and tests them with bundlers, test runners and
// other tools: `node scripts/package-tests/run.mjs [--matrix] [--only NAME] [--keep]`. The last
// line is `N passed, N failed`.
//
// `--matrix` runs every case on each version of Node in the manifest, and some cases with other
// runtimes. `--only` runs the cases whose title contains NAME. `--keep` keeps the directory with
// the installation.
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { addonFile, platform, ROOT } from "../addon.mjs";
import { PLATFORMS, packMain, packPlatform } from "../pack.mjs";
import { CASES, MATRIX_CASES, NEXT_CASES, OTHER_CASES } from "./cases.mjs";

const HERE = path.dirname(fileURLToPath(import.meta.url));
/**
 * Maximum size of a tarball with the addon of `npm run prepare`, in bytes. The published one is
 * smaller.
 */
const MAX_SIZE = 13e6;
/** Time limit of one command, in milliseconds. */
const TIMEOUT = 180_000;

const { values: options } = parseArgs({
  options: { matrix: { type: "boolean" }, only: { type: "string" }, keep: { type: "boolean" } },
});
const manifest = JSON.parse(fs.readFileSync(path.join(HERE, "package.json"), "utf8"));

/** Runs a command; resolves to its standard output, or rejects with all its output if it fails. */
function run(command, args, { cwd, env = {} }) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd,
      env: { ...environment(), ...env },
      stdio: ["ignore", "pipe", "pipe"],
      timeout: TIMEOUT,
      killSignal: "SIGKILL",
    });
    const output = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"]) {
      child[name].setEncoding("utf8").on("data", (text) => {
        output[name] += text;
      });
    }
    child.on("error", reject);
    child.on("close", (code, signal) => {
      if (code === 0) {
        resolve(output.stdout);
      } else {
        const ending = signal ? `was ended by ${signal}` : `exited with ${code}`;
        reject(new Error(`${[command, ...args].join(" ")} ${ending}\n${output.stdout}${output.stderr}`));
      }
    });
  });
}

/**
 * Returns the programs' environment, without variables of npm, Userkeep or a surrounding test
 * runner.
 */
function environment() {
  const kept = Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_ENV$|NODE_OPTIONS$|USERKEEP_)/.test(name));
  return {
    ...Object.fromEntries(kept),
    CI: "1",
    NEXT_TELEMETRY_DISABLED: "1",
    USERKEEP_DEFINITION: path.join(ROOT, "examples/quickstart/userkeep"),
  };
}

/** Returns the npm packages of Node's versions, each of which contains the binary. */
function nodePackages() {
  const system = process.platform === "win32" ? "win" : process.platform;
  const versions = manifest.nodeVersions.map((version) => [
    `node-${version}`,
    `npm:node-${system}-${process.arch}@${version}`,
  ]);
  return Object.fromEntries(versions);
}

/**
 * Packs the packages of all platforms, as in the registry, so that npm selects this machine's.
 * Returns the specification of `userkeep`, and the `overrides` with which npm finds its
 * dependencies.
 */
function pack(directory) {
  const tarballs = path.join(directory, "tarballs");
  const overrides = {};
  for (const name of PLATFORMS) {
    const addon = name === platform ? path.join(ROOT, "native", addonFile) : undefined;
    const { file, size } = packPlatform(tarballs, addon, name);
    if (size > MAX_SIZE) {
      throw new Error(`${path.basename(file)} has ${size} bytes; at most ${MAX_SIZE} are allowed`);
    }
    overrides[`@userkeep/native-${name}`] = `file:${file}`;
  }
  return { userkeep: `file:${packMain(tarballs).file}`, overrides };
}

/** Installs the package and its dependencies in a new directory. */
async function install(cwd, dependencies, { userkeep, overrides }) {
  fs.mkdirSync(cwd);
  const project = { private: true, dependencies: { ...dependencies, userkeep }, overrides };
  fs.writeFileSync(path.join(cwd, "package.json"), JSON.stringify(project));
  const options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--prefer-offline"];
  await run("npm", ["install", ...options], { cwd });
}

/**
 * Installs everything: Next in a separate directory, because it detects other bundlers next to it.
 */
async function installAll(directory) {
  const packed = pack(directory);
  const tools = {
    ...manifest.dependencies,
    ...(options.matrix && { ...manifest.matrixDependencies, ...nodePackages() }),
  };
  await Promise.all([
    install(path.join(directory, "tools"), tools, packed),
    install(path.join(directory, "next"), manifest.nextDependencies, packed),
  ]);
}

/** Runs one case; resolves to true if it passed. */
async function check(name, work) {
  const start = Date.now();
  let problem;
  try {
    await work();
  } catch (error) {
    problem = error;
  }
  const seconds = ((Date.now() - start) / 1000).toFixed(1);
  console.log(`${problem ? "FAILED" : "ok"}  ${name} (${seconds} s)${problem ? `\n${problem.message}` : ""}`);
  return !problem;
}

/** Runs one case in a copy of the fixtures, below the directory with the installed packages. */
async function runCase(work, installed, node) {
  const directory = fs.mkdtempSync(path.join(installed, "case-"));
  const outside = fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-outside-"));
  try {
    fs.cpSync(path.join(HERE, "fixtures"), directory, { recursive: true });
    const modules = path.join(installed, "node_modules");
    await work({ directory, modules, node, outside, run, environment: environment() });
  } finally {
    fs.rmSync(outside, { recursive: true, force: true });
  }
}

/** Returns the versions of Node for the cases, with the paths of their binaries. */
function nodes(directory) {
  if (!options.matrix) {
    return [[process.versions.node, process.execPath]];
  }
  const program = process.platform === "win32" ? "bin/node.exe" : "bin/node";
  return manifest.nodeVersions.map((version) => [
    version,
    path.join(directory, "tools/node_modules", `node-${version}`, program),
  ]);
}

async function runCases(directory) {
  const counts = { passed: 0, failed: 0 };
  const runAll = async (cases, installed, title, node) => {
    for (const [name, work] of Object.entries(cases)) {
      if (!options.only || `${title}${name}`.includes(options.only)) {
        const passed = await check(`${title}${name}`, () => runCase(work, path.join(directory, installed), node));
        counts[passed ? "passed" : "failed"] += 1;
      }
    }
  };
  for (const [version, node] of nodes(directory)) {
    const title = `Node ${version}: `;
    await runAll(CASES, "tools", title, node);
    await runAll(NEXT_CASES, "next", title, node);
    await runAll(options.matrix ? MATRIX_CASES : {}, "tools", title, node);
  }
  await runAll(options.matrix ? OTHER_CASES : {}, "tools", "");
  return counts;
}

const directory = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-package-")));
const total = { passed: 0, failed: 0 };
try {
  const installed = await check("installs", () => installAll(directory));
  total[installed ? "passed" : "failed"] += 1;
  if (installed) {
    const { passed, failed } = await runCases(directory);
    if (passed + failed === 0) {
      throw new Error(`no case has a name that contains '${options.only}'`);
    }
    total.passed += passed;
    total.failed += failed;
  }
} finally {
  if (options.keep) {
    console.log(`kept ${directory}`);
  } else {
    fs.rmSync(directory, { recursive: true, force: true });
  }
}
console.log(`${total.passed} passed, ${total.failed} failed`);
process.exitCode = total.failed || !total.passed ? 1 : 0;
