// Runs the program of each guide: `node scripts/guides.mjs [NAME…]`. `MONGODB_URI` is the address
// of a MongoDB-compatible server.
//
// A guide of `docs/guides` has one program: a fenced `js` block whose first line is
// `// program: NAME.mjs`. It runs in an empty temporary directory in which `userkeep` is
// installed. A guide fails if it has no program, or if its program fails or calls no method of
// `node:assert` except `match`. The last line is `N passed, N failed`.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { MongoClient } from "mongodb";

const ROOT = fileURLToPath(new URL("..", import.meta.url)).replace(/[/\\]$/, "");
const GUIDES = path.join(ROOT, "docs", "guides");
/** Time limit of a program, in milliseconds. */
const TIMEOUT = 60_000;
/** The packages that programs may import, with their directories. */
const PACKAGES = { userkeep: ROOT, "realm-web": path.join(ROOT, "node_modules", "realm-web") };

/** The databases that programs create on `MONGODB_URI`. */
const DATABASES = ["custom-user-data-database", "userkeep_mongodb-guide"];

/** Runs before a program, and writes the number of its assertions to the file in `ASSERTIONS`. */
const COUNTER = `
const assert = require("node:assert");
const fs = require("node:fs");
const { syncBuiltinESMExports } = require("node:module");
let count = 0;
for (const module of [assert, assert.strict]) {
  for (const [name, check] of Object.entries(module)) {
    // Node checks the identity of assert.match and assert.doesNotMatch, so they are not wrapped.
    if (typeof check === "function" && /^[a-z]/.test(name) && !/^(strict|match|doesNotMatch)$/.test(name)) {
      module[name] = (...args) => {
        count += 1;
        return check(...args);
      };
    }
  }
}
syncBuiltinESMExports();
const file = process.env.ASSERTIONS;
process.on("exit", () => fs.writeFileSync(file, String(count)));
`;

/** Returns the programs of a guide: `{ name, text }`. */
function programsOf(guide) {
  const blocks = fs.readFileSync(guide, "utf8").matchAll(/^```js\n(\/\/ program: (\S+\.mjs)\n[\s\S]*?)^```$/gm);
  return [...blocks].map(([, text, name]) => ({ name, text }));
}

/** Returns the environment of a program, without settings of Userkeep, npm and Node options. */
function environment(additions) {
  const kept = Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_OPTIONS$|USERKEEP_)/.test(name));
  return { ...Object.fromEntries(kept), ...additions };
}

/** Runs a program in its own directory. Returns the reason of a failure, or undefined. */
function failureOf({ name, text }) {
  const directory = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-guide-")));
  try {
    const modules = path.join(directory, "node_modules");
    fs.mkdirSync(modules);
    for (const [name, target] of Object.entries(PACKAGES)) {
      fs.symlinkSync(target, path.join(modules, name), "junction");
    }
    const assertions = path.join(modules, ".assertions");
    const counter = path.join(modules, ".counter.cjs");
    fs.writeFileSync(counter, COUNTER);
    fs.writeFileSync(path.join(directory, name), text);
    const { status, signal, error, stdout, stderr } = spawnSync(process.execPath, ["--require", counter, name], {
      cwd: directory,
      encoding: "utf8",
      env: environment({ ASSERTIONS: assertions }),
      timeout: TIMEOUT,
      killSignal: "SIGKILL",
    });
    if (error || status !== 0) {
      const ending = error?.message ?? (signal ? `ended by ${signal}` : `exit status ${status}`);
      return `${name}: ${ending}\n${stdout ?? ""}${stderr ?? ""}`;
    }
    return fs.readFileSync(assertions, "utf8") === "0" ? `${name} asserts nothing` : undefined;
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

/** Runs the program of a guide. Returns the reason of a failure, or undefined. */
function check(guide) {
  const programs = programsOf(guide);
  if (programs.length !== 1) {
    return `the guide has ${programs.length} programs, expected 1`;
  }
  return failureOf(programs[0]);
}

/** Runs `work`, and then drops the databases that it created on `MONGODB_URI`. */
async function withoutTraces(work) {
  if (!process.env.MONGODB_URI) {
    return work();
  }
  const client = await MongoClient.connect(process.env.MONGODB_URI);
  try {
    const { databases } = await client.db("admin").admin().listDatabases({ nameOnly: true });
    const before = databases.map(({ name }) => name);
    work();
    for (const name of DATABASES.filter((database) => !before.includes(database))) {
      await client.db(name).dropDatabase();
    }
  } finally {
    await client.close();
  }
}

const names = process.argv.slice(2);
const guides = fs
  .readdirSync(GUIDES)
  .filter((file) => file.endsWith(".md") && (names.length === 0 || names.includes(path.basename(file, ".md"))))
  .sort();
const counts = { passed: 0, failed: 0 };
await withoutTraces(() => {
  for (const guide of guides) {
    const start = Date.now();
    const failure = check(path.join(GUIDES, guide));
    counts[failure === undefined ? "passed" : "failed"] += 1;
    const seconds = ((Date.now() - start) / 1000).toFixed(1);
    console.log(`${failure === undefined ? "ok" : "FAILED"}  ${guide} (${seconds} s)${failure ? `\n${failure}` : ""}`);
  }
});
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed || !counts.passed ? 1 : 0;
