"use strict";

const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { ROOT, Realm } = require("./helpers.js");

const manifest = require("../package.json");

test("the package holds what a user needs, and installs nothing by a script", () => {
  const [{ files }] = JSON.parse(
    execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
      cwd: ROOT,
      stdio: ["ignore", "pipe", "ignore"],
    }),
  );
  const names = files.map(({ path: name }) => name);
  const library = fs
    .readdirSync(path.join(ROOT, "lib"), { recursive: true })
    .map((name) => `lib/${name.replaceAll(path.sep, "/")}`)
    .filter((name) => name.endsWith(".js"));
  const expected = [
    "LICENSE",
    "README.md",
    "bin/userkeep.js",
    "index.d.mts",
    "index.d.ts",
    "index.js",
    "index.mjs",
    "package.json",
    ...library,
  ];
  expect(names.sort()).toEqual(expected.sort());
  for (const script of ["preinstall", "install", "postinstall"]) {
    expect(manifest.scripts[script]).toBeUndefined();
  }
  expect(Object.keys(manifest.dependencies)).toEqual(["bson"]);
});

test("there is a package for each platform, of this version", () => {
  const platforms = [
    "darwin-arm64",
    "darwin-x64",
    "linux-arm64-gnu",
    "linux-arm64-musl",
    "linux-x64-gnu",
    "linux-x64-musl",
    "win32-x64-msvc",
  ];
  expect(fs.readdirSync(path.join(ROOT, "npm")).sort()).toEqual(platforms);
  for (const platform of platforms) {
    const { name, version, main, os, cpu, license } = JSON.parse(
      fs.readFileSync(path.join(ROOT, "npm", platform, "package.json"), "utf8"),
    );
    expect({ name, version, main, license }).toEqual({
      name: `@userkeep/native-${platform}`,
      version: manifest.version,
      main: `userkeep.${platform}.node`,
      license: "Apache-2.0",
    });
    expect(platform.startsWith(`${os[0]}-${cpu[0]}`)).toBe(true);
  }
});

test("import gives what require does, by name too", async () => {
  const script = `import Realm, * as names from "userkeep"; import { createRequire } from "node:module";
    const required = createRequire(import.meta.url)("userkeep");
    console.log(JSON.stringify({ same: Realm === required, names: Object.keys(names).filter((name) => name !== "default" && names[name] === required[name]) }));`;
  const { same, names } = JSON.parse(
    execFileSync(process.execPath, ["--input-type=module", "-e", script], { cwd: ROOT, encoding: "utf8" }),
  );
  expect(same).toBe(true);
  expect(names).toEqual(Object.keys(Realm).sort());
});

test("the README's program runs", () => {
  const [, program] = /```js\n([\s\S]*?)```/.exec(fs.readFileSync(path.join(ROOT, "README.md"), "utf8"));
  expect(program.trim().split("\n").length).toBeLessThanOrEqual(20);
  const output = execFileSync(process.execPath, ["--input-type=module", "-e", program], {
    cwd: ROOT,
    encoding: "utf8",
    env: { ...process.env, USERKEEP_STORE: "memory:" },
    stdio: ["ignore", "pipe", "ignore"],
  });
  expect(output).toMatch(
    /^\{\}\n\{\s+_id: new ObjectId\('[0-9a-f]{24}'\),\s+userId: '[0-9a-f]{24}',\s+favoriteColor: 'pink'\s+\}\n$/,
  );
});
