// The cases of the package tests. Each gets `run`, the path of Node, a copy of the fixtures below
// the installed packages (`directory`), and a directory without installed packages (`outside`).
import assert from "node:assert";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { platform } from "../addon.mjs";
import { PLATFORMS } from "../pack.mjs";

/** The output of the fixtures' program. */
const EXPECTED = "pink true\n";
/** Maximum time for loading the package in the fastest of several processes, in milliseconds. */
const MAX_LOAD_TIME = 20;
/** Maximum number of processes that are tried until one is fast enough. */
const MAX_LOADS = 100;

const copy = (from, to) => fs.cpSync(from, to, { recursive: true, dereference: true });

/** Runs a program of a fixture, and checks its output. */
async function prints({ run, node }, cwd, ...args) {
  assert.equal(await run(node, args, { cwd }), EXPECTED);
}

/** Checks the manifests and files of the installed packages. */
function contents({ modules }) {
  const read = (file) => fs.readFileSync(path.join(modules, file), "utf8");
  const manifest = JSON.parse(read("userkeep/package.json"));
  assert.deepEqual(
    manifest.optionalDependencies,
    Object.fromEntries(PLATFORMS.map((name) => [`@userkeep/native-${name}`, manifest.version])),
  );
  assert.equal(PLATFORMS.length, 7);
  assert.deepEqual(fs.readdirSync(path.join(modules, "@userkeep")), [`native-${platform}`]);
  const own = `@userkeep/native-${platform}`;
  assert.equal(JSON.parse(read(`${own}/package.json`)).version, manifest.version);
  assert.match(read(`${own}/README.md`), new RegExp(`^# \`${own}\`\n`));
  assert.equal(read(`${own}/LICENSE`), read("userkeep/LICENSE"));
}

/** Starts a server, and resolves to its response to one request. */
async function answerOf(node, args, { cwd, env, url }) {
  const child = spawn(node, args, { cwd, env, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (text) => {
      output += text;
    });
  }
  try {
    for (let attempt = 0; attempt < 300 && child.exitCode === null; attempt++) {
      const response = await fetch(url).catch(() => null);
      if (response) {
        return { status: response.status, body: await response.text() };
      }
      await setTimeout(100);
    }
    throw new Error(`the server did not answer:\n${output}`);
  } finally {
    child.kill("SIGKILL");
  }
}

/** Resolves to a port that nothing listens on. */
async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

export const CASES = {
  contents,

  "node, require": (context) => prints(context, context.directory, "main.cjs"),

  "node, import": (context) => prints(context, context.directory, "main.mjs"),

  "node, command line": async ({ run, node, modules, directory }) => {
    const command = path.join(modules, "userkeep/bin/userkeep.js");
    const files = await run(node, [command, "init", "definition"], { cwd: directory });
    assert.match(files, /rules\.json/);
    const output = await run(node, [command, "check", "definition"], { cwd: directory });
    assert.match(output, /definition: no problems\n$/);
  },

  "reports the missing addon's name": async ({ run, node, modules, directory, outside }) => {
    copy(path.join(modules, "userkeep"), path.join(outside, "node_modules/userkeep"));
    fs.copyFileSync(path.join(directory, "main.cjs"), path.join(outside, "main.cjs"));
    fs.copyFileSync(path.join(directory, "program.cjs"), path.join(outside, "program.cjs"));
    const missing = new RegExp(`addon for ${platform} was not found. Was @userkeep/native-${platform} installed`);
    await assert.rejects(run(node, ["main.cjs"], { cwd: outside }), missing);
  },

  "loads fast, and loads bson only when needed": async ({ run, node, directory }) => {
    const program = `
      process.report.getReport = () => { throw new Error("the report takes long"); };
      const start = process.hrtime.bigint();
      const Realm = require("userkeep");
      const time = Number(process.hrtime.bigint() - start) / 1e6;
      const early = Object.keys(require.cache).filter((name) => /node_modules.bson/.test(name));
      console.log(JSON.stringify({ time, early, late: typeof Realm.BSON.ObjectId }));`;
    let fastest = Number.POSITIVE_INFINITY;
    // On a busy machine most loads are slow, but not all.
    for (let count = 0; count < MAX_LOADS && fastest >= MAX_LOAD_TIME; count++) {
      const { time, early, late } = JSON.parse(await run(node, ["-e", program], { cwd: directory }));
      assert.deepEqual(early, []);
      assert.equal(late, "function");
      fastest = Math.min(fastest, time);
    }
    assert.ok(fastest < MAX_LOAD_TIME, `loading took ${fastest} ms at least; ${MAX_LOAD_TIME} are allowed`);
  },

  jest: async ({ run, node, modules, directory }) => {
    const report = path.join(directory, "report.json");
    const jest = path.join(modules, "jest/bin/jest.js");
    await run(node, [jest, "--ci", "--json", `--outputFile=${report}`], { cwd: path.join(directory, "jest") });
    assert.equal(JSON.parse(fs.readFileSync(report, "utf8")).numPassedTests, 4);
  },

  "vitest, forks": (context) => vitest(context, "forks"),

  "vitest, threads": (context) => vitest(context, "threads"),

  // One worker ends before the next one loads the addon.
  "vitest, one thread after another": (context) => vitest(context, "threads", "--maxWorkers=1"),

  "node:test": async ({ run, node, directory }) => {
    const output = await run(node, ["--test", "--test-reporter=tap"], { cwd: path.join(directory, "node-test") });
    assert.match(output, /^# pass 4$/m);
    assert.match(output, /^# fail 0$/m);
  },

  esbuild: async (context) => {
    const cwd = path.join(context.directory, "esbuild");
    await context.run(context.node, ["build.mjs"], { cwd });
    await prints(context, cwd, "external/main.cjs");
    copy(path.join(cwd, "copied"), context.outside);
    await prints(context, context.outside, "main.cjs");
  },

  webpack: async (context) => {
    const cwd = path.join(context.directory, "webpack");
    await context.run(context.node, ["build.mjs"], { cwd });
    copy(path.join(cwd, "bundle"), context.outside);
    await prints(context, context.outside, "main.cjs");
  },

  rollup: async (context) => {
    const cwd = path.join(context.directory, "rollup");
    await context.run(context.node, ["build.mjs"], { cwd });
    await prints(context, cwd, "external/main.mjs");
    // The bundle needs only the addon's package.
    copy(path.join(cwd, "bundle"), context.outside);
    copy(path.join(context.modules, "@userkeep"), path.join(context.outside, "node_modules/@userkeep"));
    await prints(context, context.outside, "main.cjs");
  },

  "Vite SSR": async (context) => {
    const cwd = path.join(context.directory, "vite");
    assert.equal(await context.run(context.node, ["build.mjs"], { cwd }), EXPECTED);
    await prints(context, cwd, "bundle/main.mjs");
  },

  "@vercel/nft": async (context) => {
    const { run, node, directory, outside } = context;
    const base = path.dirname(directory);
    await run(node, ["nft/trace.mjs", path.join(directory, "main.mjs"), base, outside], { cwd: directory });
    const name = path.basename(directory);
    await prints(context, outside, `${name}/main.mjs`);
    assert.deepEqual(fs.readdirSync(path.join(outside, name)).sort(), ["main.mjs", "program.mjs"]);
    assert.deepEqual(fs.readdirSync(path.join(outside, "node_modules")).sort(), ["@userkeep", "bson", "userkeep"]);
  },
};

/** The cases of Next, which is installed separately. */
export const NEXT_CASES = {
  "Next, standalone": async ({ run, node, modules, directory, outside, environment }) => {
    const cwd = path.join(directory, "next");
    await run(node, [path.join(modules, "next/dist/bin/next"), "build"], { cwd });
    copy(path.join(cwd, ".next/standalone"), outside);
    const port = await freePort();
    const env = { ...environment, PORT: `${port}`, HOSTNAME: "127.0.0.1" };
    const server = path.join(path.basename(directory), "next/server.js");
    const url = `http://127.0.0.1:${port}/color`;
    assert.deepEqual(await answerOf(node, [server], { cwd: outside, env, url }), {
      status: 200,
      body: EXPECTED.trim(),
    });
  },
};

/** Runs vitest with two files, each in a worker of this pool. */
async function vitest({ run, node, modules, directory }, pool, ...options) {
  const report = path.join(directory, "report.json");
  const args = [path.join(modules, "vitest/vitest.mjs"), "run", `--pool=${pool}`, ...options];
  await run(node, [...args, "--reporter=json", `--outputFile=${report}`], { cwd: path.join(directory, "vitest") });
  assert.equal(JSON.parse(fs.readFileSync(report, "utf8")).numPassedTests, 4);
}

/** Additional cases of `--matrix`, on each version of Node. */
export const MATRIX_CASES = {
  AVA: async ({ run, node, modules, directory }) => {
    const ava = path.join(modules, "ava/entrypoints/cli.mjs");
    // AVA looks for tests next to a manifest.
    fs.writeFileSync(path.join(directory, "ava/package.json"), "{}");
    const output = await run(node, [ava, "--tap", "*.test.mjs"], { cwd: path.join(directory, "ava") });
    assert.match(output, /^# pass 4$/m);
    assert.match(output, /^# fail 0$/m);
  },

  Piscina: (context) => prints(context, context.directory, "piscina/main.mjs"),

  tsx: (context) => prints(context, context.directory, path.join(context.modules, "tsx/dist/cli.mjs"), "main.mts"),
};

/** Additional cases of `--matrix` with other runtimes than Node. */
export const OTHER_CASES = {
  Bun: async ({ run, modules, directory }) => {
    const system = process.platform === "win32" ? "windows" : process.platform;
    const name = `@oven/bun-${system}-${process.arch === "arm64" ? "aarch64" : process.arch}`;
    const bun = path.join(modules, name, "bin", process.platform === "win32" ? "bun.exe" : "bun");
    assert.equal(await run(bun, ["main.mjs"], { cwd: directory }), EXPECTED);
  },

  Deno: async ({ run, modules, directory }) => {
    const args = ["run", "--allow-all", "--node-modules-dir=manual", "main.mjs"];
    // The package of Deno starts the program for this machine.
    const deno = path.join(modules, "deno/bin.cjs");
    assert.equal(await run(process.execPath, [deno, ...args], { cwd: directory }), EXPECTED);
  },
};
