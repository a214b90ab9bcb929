"use strict";

const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { pathToFileURL } = require("node:url");
const { ROOT, Realm, temporaryDirectory } = require("./helpers.js");

const manifest = require("../package.json");

test("the package contains the expected files, and has no install scripts", () => {
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
    .filter((name) => /\.(js|d\.ts)$/.test(name));
  const expected = [
    "LICENSE",
    "README.md",
    "bin/userkeep.js",
    "docs/realm-database.md",
    "experimental/base-url.d.ts",
    "experimental/base-url.js",
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

test("each platform has a package of this version", () => {
  const platforms = [
    "darwin-arm64",
    "darwin-x64",
    "linux-arm64-gnu",
    "linux-arm64-musl",
    "linux-x64-gnu",
    "linux-x64-musl",
    "win32-x64-msvc",
  ];
  expect(fs.readdirSync(path.join(ROOT, "npm")).sort()).toEqual([...platforms, "realm"].sort());
  for (const platform of platforms) {
    const read = (file) => fs.readFileSync(path.join(ROOT, "npm", platform, file), "utf8");
    const { name, version, main, os, cpu, license, author, homepage, bugs, repository } = JSON.parse(
      read("package.json"),
    );
    expect({ name, version, main, license, author, homepage, bugs, repository }).toEqual({
      name: `@userkeep/native-${platform}`,
      version: manifest.version,
      main: `userkeep.${platform}.node`,
      license: "Apache-2.0",
      author: manifest.author,
      homepage: manifest.homepage,
      bugs: manifest.bugs,
      repository: { ...manifest.repository, directory: `npm/${platform}` },
    });
    expect(read("README.md")).toMatch(`# \`${name}\``);
    expect(read("README.md")).not.toMatch("`@userkeep/native`");
    expect(read("LICENSE")).toBe(fs.readFileSync(path.join(ROOT, "LICENSE"), "utf8"));
    expect(platform.startsWith(`${os[0]}-${cpu[0]}`)).toBe(true);
  }
});

test("the manifest names its repository, and lib/native.js has a literal require for each platform", () => {
  expect(manifest.repository.url).toMatch(/^git\+https:/);
  for (const field of ["author", "homepage", "bugs"]) {
    expect(manifest[field]).toBeTruthy();
  }
  const loader = fs.readFileSync(path.join(ROOT, "lib/native.js"), "utf8");
  const names = [...loader.matchAll(/case "(.+)":\s+return require\("(.+)"\)/g)].map(([, ...pair]) => pair);
  const isPlatform = (name) => JSON.parse(fs.readFileSync(path.join(ROOT, "npm", name, "package.json"), "utf8")).os;
  const platforms = fs.readdirSync(path.join(ROOT, "npm")).filter(isPlatform).sort();
  expect(names).toEqual(platforms.map((platform) => [platform, `@userkeep/native-${platform}`]));
});

test("npm pack adds the platform packages to the manifest, and restores it afterwards", () => {
  const script = (argument) =>
    execFileSync(process.execPath, [path.join(ROOT, "scripts/manifest.mjs"), argument], { cwd: copy });
  const copy = temporaryDirectory();
  const file = path.join(copy, "package.json");
  script("published");
  const published = JSON.parse(fs.readFileSync(file, "utf8"));
  expect(Object.values(published.optionalDependencies)).toEqual(Array(7).fill(manifest.version));
  script("checkout");
  expect(fs.readFileSync(file, "utf8")).toBe(fs.readFileSync(path.join(ROOT, "package.json"), "utf8"));
});

test("selects the musl addon if Node's ELF interpreter is musl's, and glibc's otherwise", () => {
  const copy = temporaryDirectory();
  const script = `process.report = null;
    Object.defineProperty(process, "platform", { value: "linux" });
    process.execPath = process.argv[1];
    console.log(require(process.argv[2]).platform);`;
  const platformFor = (header) => {
    fs.writeFileSync(path.join(copy, "node"), header);
    const args = ["-e", script, path.join(copy, "node"), path.join(ROOT, "lib/platform.js")];
    return execFileSync(process.execPath, args, { encoding: "utf8" }).trim();
  };
  expect(platformFor("\x7fELF\0/lib/ld-musl-x86_64.so.1\0")).toBe(`linux-${process.arch}-musl`);
  expect(platformFor("\x7fELF\0/lib64/ld-linux-x86-64.so.2\0")).toBe(`linux-${process.arch}-gnu`);
});

test("textsWithDirectories finds the strings in a binary that name a directory", () => {
  const script = `import { textsWithDirectories } from ${JSON.stringify(pathToFileURL(path.join(ROOT, "scripts/addon.mjs")))};
    const binary = Buffer.from("\\0/home/ada/src/lib.rs\\0/home/adalbert\\0/opt/x.c\\0");
    console.log(JSON.stringify(textsWithDirectories(binary, ["/home/ada", "/opt", "/work"])));`;
  const output = execFileSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
  expect(JSON.parse(output)).toEqual(["/home/ada/src/lib.rs", "/opt/x.c"]);
});

test("import returns the same object as require, and has all named exports", async () => {
  const script = `import Realm, * as names from "userkeep"; import { createRequire } from "node:module";
    const required = createRequire(import.meta.url)("userkeep");
    console.log(JSON.stringify({ same: Realm === required, names: Object.keys(names).filter((name) => name !== "default" && names[name] === required[name]) }));`;
  const { same, names } = JSON.parse(
    execFileSync(process.execPath, ["--input-type=module", "-e", script], { cwd: ROOT, encoding: "utf8" }),
  );
  expect(same).toBe(true);
  const builtIn = ["default", "length", "name", "prototype"];
  expect(names).toEqual(
    Object.getOwnPropertyNames(Realm)
      .filter((name) => !builtIn.includes(name))
      .sort(),
  );
});

test("Realm.BSON is loaded on first access, and can be replaced before and after", () => {
  const script = `const load = () => {
      for (const name of Object.keys(require.cache).filter((name) => !name.endsWith(".node"))) delete require.cache[name];
      return require(".");
    };
    const isLoaded = () => Object.keys(require.cache).some((name) => /node_modules.bson/.test(name));
    const [first, second] = [load(), load()];
    first.BSON = 1;
    const before = isLoaded();
    const names = Object.keys(second).includes("BSON");
    const type = typeof second.BSON.ObjectId;
    second.BSON = 2;
    console.log(JSON.stringify([first.BSON, before, names, type, isLoaded(), second.BSON]));`;
  const output = execFileSync(process.execPath, ["-e", script], { cwd: ROOT, encoding: "utf8" });
  expect(JSON.parse(output)).toEqual([1, false, true, "function", true, 2]);
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
