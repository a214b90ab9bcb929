"use strict";

// Installs the packed packages into a separate project, as a user does, without network access.
// `realm` is the alias package.
const { execFileSync, spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { addonFile, platform } = require("../lib/platform.js");

const ROOT = path.resolve(__dirname, "..");
const TSC = path.join(ROOT, "node_modules/typescript/bin/tsc");
const NPM = ["--offline", "--ignore-scripts", "--no-audit", "--no-fund"];
const PATIENCE = 180_000;

/** Returns the path of a file in the project. */
let inProject;
let directory;

const write = (name, contents) => {
  fs.mkdirSync(path.dirname(inProject(name)), { recursive: true });
  fs.writeFileSync(inProject(name), typeof contents === "string" ? contents : JSON.stringify(contents));
};

/** Packs the package in a directory, and returns the npm specification of the tarball. */
function pack(from) {
  const output = execFileSync("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", directory], {
    cwd: from,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const [{ filename }] = JSON.parse(output);
  return `file:${path.join(directory, filename)}`;
}

/** Packs a package with a version range of `realm` as its peer dependency. */
function packPeer(name, range) {
  const from = path.join(directory, name);
  fs.mkdirSync(from);
  fs.writeFileSync(
    path.join(from, "package.json"),
    JSON.stringify({ name, version: "1.0.0", peerDependencies: { realm: range } }),
  );
  return pack(from);
}

function npm(...args) {
  // Overrides the log level of the npm that runs these tests.
  const all = [...args, "--loglevel=error"];
  const { status, stdout, stderr } = spawnSync("npm", all, { cwd: inProject("."), encoding: "utf8" });
  return { status, output: `${stdout}${stderr}` };
}

/** Runs a program in the project; returns its exit status and output. */
function run(name, contents) {
  write(name, contents);
  const { status, stdout, stderr } = spawnSync(process.execPath, [name], { cwd: inProject("."), encoding: "utf8" });
  return { status, stdout, stderr };
}

/** Compiles the files in a folder of the project; returns the compiler's errors. */
function compile(folder, compilerOptions) {
  write(`${folder}/tsconfig.json`, {
    compilerOptions: { target: "es2022", strict: true, skipLibCheck: false, types: [], ...compilerOptions },
  });
  return spawnSync(process.execPath, [TSC, "-p", inProject(folder)], { encoding: "utf8" }).stdout;
}

beforeAll(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-alias-"));
  inProject = (name) => path.join(directory, "project", name);
  const native = path.join(directory, "native");
  fs.cpSync(path.join(ROOT, "npm", platform), native, { recursive: true });
  fs.copyFileSync(path.join(ROOT, "native", addonFile), path.join(native, addonFile));
  write("package.json", {
    private: true,
    dependencies: {
      realm: pack(path.join(ROOT, "npm/realm")),
      userkeep: pack(ROOT),
      bson: pack(path.join(ROOT, "node_modules/bson")),
      [`@userkeep/native-${platform}`]: `file:${native}`,
      "wants-twelve": packPeer("wants-twelve", "^12.0.0"),
    },
  });
  const { status, output } = npm("install", ...NPM);
  if (status !== 0) {
    throw new Error(output);
  }
}, PATIENCE);

afterAll(() => fs.rmSync(directory, { recursive: true, force: true }));

test("the alias has a version of realm 12, and depends on this release", () => {
  const manifest = JSON.parse(fs.readFileSync(path.join(ROOT, "npm/realm/package.json"), "utf8"));
  const { version } = require("../package.json");
  expect(manifest.version).toMatch(/^12\.100\.\d+$/);
  expect(manifest.dependencies).toEqual({ userkeep: version });
});

test("the alias satisfies a peer range of ^12, but not of >=20", () => {
  const { status, output } = npm("ls", "realm", "--all");
  expect({ status, output }).toEqual({
    status: 0,
    output: expect.stringContaining("realm@npm:@userkeep/realm@12.100"),
  });
  const refused = npm("install", ...NPM, "--no-save", packPeer("wants-twenty", ">=20"));
  expect(refused.status).not.toBe(0);
  expect(refused.output).toContain("ERESOLVE");
});

/** Source of a function that logs in with the names that a program has imported. */
const LOG_IN = `
async function logIn(App, Credentials) {
  const app = new App({ id: "alias", store: "memory:", logger: null });
  const user = await app.logIn(Credentials.anonymous());
  console.log(user.state, app.baseUrl === "");
  await app.close();
}
`;

test("every form of require works", () => {
  const program = `${LOG_IN}
    const Realm = require("realm");
    const { Realm: ByName, App, BSON, Credentials, UpdateMode, User } = require("realm");
    require("realm/experimental/base-url");
    class Task extends Realm.Object { static schema = { name: "Task", properties: {} }; }
    console.log(ByName === Realm, require("realm").default === Realm, require("userkeep") === Realm);
    console.log(BSON.ObjectId("63c1b2a1f0e1d2c3b4a59687").toHexString(), UpdateMode.All, typeof User, Task.schema.name);
    console.log(require("realm/package.json").version.split(".")[0]);
    try { new Task(); } catch ({ message }) { console.log(message); }
    logIn(App, Credentials);`;
  expect(run("forms.cjs", program)).toEqual({
    status: 0,
    stdout: [
      "true true true",
      "63c1b2a1f0e1d2c3b4a59687 all function Task",
      "12",
      "Realm.Object belongs to the Realm database, which Userkeep does not include: see userkeep/docs/realm-database.md",
      "LoggedIn true",
      "",
    ].join("\n"),
    stderr: "",
  });
});

test("every form of import works", () => {
  const program = `${LOG_IN}
    import Realm from "realm";
    import { Realm as ByName, App, BSON, Credentials, Object as RealmObject, Set as RealmSet, UserState } from "realm";
    import * as Namespace from "realm";
    import * as Userkeep from "userkeep";
    import "realm/experimental/base-url";
    import { createRequire } from "node:module";
    class Task extends RealmObject { static schema = { name: "Task", properties: {} }; }
    console.log(ByName === Realm, Namespace.default === Realm, Namespace.App === App, RealmSet === Realm.Set);
    console.log(createRequire(import.meta.url)("realm") === Realm);
    console.log(Object.keys(Namespace).join() === Object.keys(Userkeep).join(), Object.keys(Namespace).length > 50);
    console.log(Task.schema.name, typeof BSON.EJSON.stringify, UserState.LoggedOut);
    Namespace.setLogLevel("error");
    await logIn(App, Credentials);
    await logIn(Namespace.App, Namespace.Credentials);`;
  expect(run("forms.mjs", program)).toEqual({
    status: 0,
    stdout: "true true true true\ntrue\ntrue true\nTask function LoggedOut\nLoggedIn true\nLoggedIn true\n",
    stderr: "",
  });
});

test("the global Realm is the one that require returns", () => {
  const { stdout } = run(
    "global.cjs",
    `const imported = require("realm"); console.log(globalThis.Realm === imported);`,
  );
  expect(stdout).toBe("true\n");
});

describe("TypeScript", () => {
  test(
    "finds the types of the package `realm` with Node's module resolution",
    () => {
      for (const name of ["cjs.cts", "esm.mts", "sdk.cts", "sdk.mts"]) {
        const contents = fs.readFileSync(path.join(__dirname, "types", name), "utf8");
        write(`nodenext/${name}`, contents.replaceAll('"userkeep', '"realm'));
      }
      expect(compile("nodenext", { module: "nodenext", noEmit: true })).toBe("");
    },
    PATIENCE,
  );

  const FORMS = `
    import { App, BSON, Credentials, Realm, UserState } from "realm";
    import "realm/experimental/base-url";
    class Task extends Realm.Object<Task> { name!: string; }
    const app: Realm.App = new App({ id: "alias", store: "memory:", logger: null });
    const state: UserState.LoggedIn = UserState.LoggedIn;
    export type Parts = [Realm.User, Realm.Services.MongoDB, BSON.ObjectId, Realm.Results<Task>];
    app.logIn(Credentials.anonymous()).then(async (user: Realm.User) => {
      console.log(user.state === state, app.baseUrl === "", typeof Task);
      await app.close();
    });`;
  const DEFAULT = `
    import Default from "realm";
    export const other: Default.App | null = null;
    console.log(Default === Realm);`;
  const NAMESPACE = `
    import * as Namespace from "realm";
    export const another: Namespace.User | null = null;
    console.log(Namespace.UpdateMode.All);`;
  const REQUIRE = `
    import Required = require("realm");
    export const required: Required.Credentials | null = null;
    console.log(Required === Realm);`;

  test.each([
    [
      "CommonJS",
      { module: "commonjs", moduleResolution: "node10", esModuleInterop: false },
      FORMS + DEFAULT + NAMESPACE + REQUIRE,
    ],
    [
      "CommonJS with esModuleInterop",
      { module: "commonjs", moduleResolution: "node10", esModuleInterop: true },
      FORMS + DEFAULT + NAMESPACE + REQUIRE,
    ],
    ["ES modules for bundlers", { module: "esnext", moduleResolution: "bundler" }, FORMS + DEFAULT + NAMESPACE],
  ])(
    "compiles every form of import to %s that runs",
    (name, options, program) => {
      const folder = name.replaceAll(" ", "-");
      const isModule = options.module === "esnext";
      write(`${folder}/package.json`, { type: isModule ? "module" : "commonjs" });
      write(`${folder}/forms.ts`, program);
      expect(compile(folder, options)).toBe("");
      const { stdout, stderr } = spawnSync(process.execPath, [inProject(`${folder}/forms.js`)], { encoding: "utf8" });
      expect(stderr).toBe("");
      const lines = stdout.trim().split("\n");
      expect(lines.pop()).toBe("true true function");
      expect(lines.length).toBeGreaterThan(0);
      expect(lines.every((line) => line === "true" || line === "all")).toBe(true);
    },
    PATIENCE,
  );
});
