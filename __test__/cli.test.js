"use strict";

// The command line: help, wrong arguments, the default store and the progress bar.

const { execFile } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { promisify } = require("node:util");
const { QUICKSTART, ROOT, Realm, openBackend, temporaryDirectory, userkeep, writeDefinition } = require("./helpers.js");
const { ProgressLine, showProgress } = require("../lib/cli/progress.js");
const { closest } = require("../lib/suggest.js");
const { version } = require("../package.json");

const run = promisify(execFile);
const COMMANDS = [
  "init",
  "check",
  "serve",
  "functions",
  "logs",
  "keys",
  "backup",
  "export",
  "import",
  "migrate",
  "doctor",
];

/** Runs the command line in a directory; resolves to `{ status, stdout, stderr }`. */
async function runIn(cwd, ...args) {
  const env = { ...process.env, NODE_ENV: "production", USERKEEP_STORE: "", USERKEEP_DEFINITION: "" };
  try {
    const { stdout, stderr } = await run(process.execPath, [path.join(ROOT, "bin/userkeep.js"), ...args], { cwd, env });
    return { status: 0, stdout, stderr };
  } catch ({ code, stdout, stderr }) {
    return { status: code, stdout, stderr };
  }
}

/** Creates the default store of an app, with one document; returns the path of its file. */
async function makeStore(baseFilePath, id = "my-app") {
  const backend = await openBackend({ id, definition: QUICKSTART, baseFilePath, store: undefined });
  await backend.collection("app", "people").insertOne({ _id: id });
  await backend.close();
  return path.join(baseFilePath, ".userkeep", `${encodeURIComponent(id)}.sqlite`);
}

/** Returns the signing keys in a store by app, as documents of BSON. */
async function keysIn(file) {
  const backend = await openBackend({ id: "reader", definition: QUICKSTART, store: `sqlite:${file}` });
  const dump = path.join(temporaryDirectory(), "dump");
  await backend.export(dump);
  await backend.close();
  const keys = {};
  for (const database of fs.readdirSync(dump).filter((name) => name.startsWith("userkeep_"))) {
    const bytes = fs.readFileSync(path.join(dump, database, "keys.bson"));
    const documents = [];
    for (let at = 0; at < bytes.length; at += bytes.readInt32LE(at)) {
      documents.push(bytes.toString("hex", at, at + bytes.readInt32LE(at)));
    }
    keys[database.slice("userkeep_".length)] = documents;
  }
  return keys;
}

test("every command has a help text with the default of each option", async () => {
  const all = await userkeep("--help");
  expect(all).toEqual({
    status: 0,
    stdout: expect.stringMatching(/^Usage: userkeep <command> \[options\]\n/),
    stderr: "",
  });
  expect(await userkeep("-h")).toEqual(all);
  expect(await userkeep("help")).toEqual(all);
  expect(await userkeep()).toEqual(all);
  expect(await userkeep("help", "help")).toEqual(all);
  expect(await userkeep("help", "--help")).toEqual(all);
  for (const command of COMMANDS) {
    expect(all.stdout).toMatch(new RegExp(`^  ${command} `, "m"));
    const help = await userkeep(command, "--help");
    expect(help).toMatchObject({ status: 0, stderr: "" });
    expect(help.stdout).toMatch(new RegExp(`^Usage: userkeep ${command}[ \\n]`));
    const options = help.stdout.split("\n").filter((line) => line.startsWith("  --"));
    for (const line of options) {
      expect(line).toMatch(/\((default: .+|required)\)$/);
    }
    expect(await userkeep(command, "--nonsense", "-h")).toEqual(help);
    expect(await userkeep("help", command)).toEqual(help);
  }
  expect(await userkeep("--version")).toEqual({ status: 0, stdout: `${version}\n`, stderr: "" });
});

test("errors about a misspelled command, option or value suggest the closest one", async () => {
  const cases = [
    [["dcotor"], "userkeep: unknown command 'dcotor'; did you mean 'doctor'?\n"],
    [["dance"], "userkeep: unknown command 'dance'\n"],
    [["serve", "--prot", "1"], "userkeep: unknown option '--prot'; did you mean --port?\n"],
    [["serve", "--loud"], "userkeep: unknown option '--loud'\n"],
    [["serve", "-x"], "userkeep: unknown option '-x'\n"],
    [["serve", "--port"], "userkeep: --port needs a value: --port PORT\n"],
    [["serve", "--host", "--port", "1"], "userkeep: --host needs a value: --host HOST\n"],
    [["serve", "--port", "70000"], "userkeep: --port must be from 0 to 65535, got '70000'\n"],
    [["serve", "--port=-1"], "userkeep: --port must be a number, got '-1'\n"],
    [["serve", "--port", "-1"], "userkeep: --port must be a number, got '-1'\n"],
    [["serve", "--host", "-x"], "--host HOST, got '-x'; a value that begins with '-' needs --host=VALUE\n"],
    [["init", "--app", ""], "userkeep: --app needs a value, got ''\n"],
    [["init", ""], "userkeep: DIR needs a value, got ''\n"],
    [["check", ""], "userkeep: DIR needs a value, got ''\n"],
    [["backup", ""], "userkeep: FILE needs a value, got ''\n"],
    [["serve", "--definition", ""], "userkeep: --definition needs a value, got ''\n"],
    [["init", path.join(ROOT, "package.json")], "package.json is not a directory; nothing was written\n"],
    [["init", path.join(ROOT, "package.json/x")], "package.json/x is not a directory; nothing was written\n"],
    [["serve", "--max-time", "0"], "userkeep: --max-time must be from 1 to 9007199254740991, got '0'\n"],
    [["serve", "--token-audience=no"], "userkeep: --token-audience takes no value, got 'no'\n"],
    [["serve", "--log-level", "inof"], "must be off, error, warn, info or debug, got 'inof'; did you mean 'info'?\n"],
    [["serve", "extra"], "userkeep: unexpected argument 'extra'\n"],
    [["keys", "rotat"], "the only action of 'userkeep keys' is rotate, got 'rotat'\n"],
    [["backup"], "userkeep: the file of the copy is missing\n"],
    [["help", "chekc"], "userkeep: unknown command 'chekc'; did you mean 'check'?\n"],
  ];
  for (const [args, expected] of cases) {
    expect(await userkeep(...args)).toEqual({ status: 1, stdout: "", stderr: expect.stringContaining(expected) });
  }
  expect(closest("read".repeat(1000), ["read"])).toBeUndefined();
});

test("init writes the app id, and the other commands read it", async () => {
  const directory = temporaryDirectory();
  expect(await runIn(directory, "init", "--app", "shop-abcde")).toMatchObject({ status: 0 });
  const root = JSON.parse(fs.readFileSync(path.join(directory, "userkeep/root_config.json"), "utf8"));
  expect(root).toMatchObject({ app_id: "shop-abcde" });
  expect((await runIn(directory, "doctor")).stderr).toMatch(/there is no store at .*shop-abcde\.sqlite\n$/);
  const file = await makeStore(directory, "shop-abcde");
  expect(await runIn(directory, "doctor")).toMatchObject({
    status: 0,
    stdout: `${fs.realpathSync(file)}: nothing is wrong\n`,
  });
});

test("check compiles the functions and lists what calls would find", async () => {
  const manifest = [
    { name: "main" },
    { name: "broken" },
    { name: "lost" },
    { name: "hidden", private: true },
    { name: "used", private: true },
    { name: "ofTrigger", private: true },
    { name: "other", run_as_user_id_script_source: "exports = (;" },
  ];
  const sources = {
    main: `exports = async () => {
  const lodash = require("no-such-package");
  // A comment is not code: require("commented-out")
  await context.functions.execute("used");
  return context.functions.execute("nope");
};`,
    broken: "exports = () => {\n  let a = ;\n};",
    hidden: "exports = () => 1;",
    used: "exports = () => 2;",
    ofTrigger: "exports = () => 3;",
    other: "exports = () => 4;",
  };
  const entries = Object.entries(sources).map(([name, source]) => [`functions/${name}.js`, source]);
  const definition = writeDefinition({
    "functions/config.json": manifest,
    ...Object.fromEntries(entries),
    "triggers/nightly.json": { name: "nightly", type: "SCHEDULED", function_name: "ofTrigger" },
  });
  const { status, stdout } = await userkeep("check", definition);
  expect(stdout).toMatch(/^warning: functions\/broken\.js:2:11: SyntaxError: Unexpected token ';'$/m);
  expect(stdout).toMatch(/^warning: functions\/main\.js:2:18: Cannot find module 'no-such-package'.*'main'$/m);
  expect(stdout).toMatch(/^warning: functions\/main\.js:5:18: function not found: 'nope'$/m);
  expect(stdout).toMatch(/^warning: run_as_user_id_script_source of other:1:12: SyntaxError: /m);
  expect(stdout).toMatch(/^warning: functions\/config\.json: .*no source of 'lost'/m);
  expect(stdout).toMatch(/^warning: functions\/config\.json: nothing can call the private function 'hidden'$/m);
  expect(stdout).not.toMatch(/commented-out|function 'used'|'ofTrigger'|'lost' has no source/);
  // A call of a broken function fails, but the definition loads.
  expect(status).toBe(0);
  expect(await userkeep("check", "--strict", definition)).toMatchObject({ status: 1 });
});

test("check warns of a reset function that always answers success", async () => {
  const reset = (source) => {
    const config = { autoConfirm: true, runResetFunction: true, resetFunctionName: "reset" };
    return writeDefinition({
      "auth/providers.json": { "local-userpass": { name: "local-userpass", type: "local-userpass", config } },
      "functions/config.json": [{ name: "reset", private: true }, { name: "other" }],
      "functions/reset.js": source,
      "functions/other.js": 'exports = () => ({ status: "success" });',
    });
  };
  const always = `exports = ({ token, tokenId, username, password }) => {
    // answers 'pending' or "fail" otherwise
    return { status: 'success' };
  };`;
  const warned = await userkeep("check", reset(always));
  expect(warned.stdout).toMatch(
    /^warning: functions\/reset\.js: the reset function always answers 'success', so that /m,
  );
  expect(warned.stdout).not.toMatch(/other\.js/);
  for (const source of [
    'exports = ({ currentPasswordValid }) => ({ status: currentPasswordValid ? "success" : "fail" });',
    "exports = () => ({ status: 'pending' });",
    'exports = (event, code) => { if (code !== 5) throw new Error("no"); return { status: "success" }; };',
  ]) {
    expect((await userkeep("check", reset(source))).stdout).not.toMatch(/reset function/);
  }
});

test("serve takes the number of threads of functions", async () => {
  const { stdout } = await userkeep("serve", "--help");
  expect(stdout).toMatch(/--function-threads N +threads that run functions; .*\(default: one per core\)\n/);
  expect(await userkeep("serve", "--function-threads", "65")).toMatchObject({
    status: 1,
    stderr: "userkeep: --function-threads must be from 0 to 64, got '65'\n",
  });
});

test("without an app id, the commands use the only store in .userkeep", async () => {
  const directory = temporaryDirectory();
  const none = await runIn(directory, "backup", "copy.sqlite");
  expect(none.stderr).toBe("userkeep: there is no store in .userkeep; name one with --store sqlite:PATH or --app ID\n");
  const file = fs.realpathSync(await makeStore(directory, "my app"));
  expect(await runIn(directory, "backup", "copy.sqlite")).toMatchObject({ status: 0, stdout: `copied ${file}\n` });
  expect(await runIn(directory, "export", "dump")).toMatchObject({
    status: 0,
    stdout: expect.stringMatching(/^exported \d+ documents from /),
  });
  expect(await runIn(directory, "import", "dump")).toMatchObject({ status: 0 });
  const checked = await runIn(directory, "doctor");
  // A database on MongoDB cannot be named after this app.
  expect([checked.status, checked.stdout]).toEqual([
    1,
    expect.stringMatching(/^the database 'userkeep_my app': MongoDB does not accept its name: .*\n$/),
  ]);
  const rotated = await runIn(directory, "keys", "rotate", "--definition", writeDefinition({ "root_config.json": {} }));
  const key = rotated.stdout.replace(`new signing key of app 'my app' in ${file}: `, "");
  expect(key).toMatch(/^\w+\n$/);
  await makeStore(directory, "other");
  const several = await runIn(directory, "doctor");
  expect(several.stderr).toContain("there are 2 stores: my%20app.sqlite, other.sqlite; name one with");
  expect(await runIn(directory, "doctor", "--app", "other")).toMatchObject({ status: 0 });
});

test("a command that writes takes no store of another app than the definition's", async () => {
  const directory = temporaryDirectory();
  const file = await makeStore(directory);
  expect(await runIn(directory, "export", "dump", "--definition", QUICKSTART)).toMatchObject({ status: 0 });
  const before = await keysIn(file);
  const commands = [
    ["import", "dump"],
    ["doctor", "--repair"],
    ["keys", "rotate"],
  ];
  for (const command of commands) {
    expect(await runIn(directory, ...command, "--definition", QUICKSTART)).toEqual({
      status: 1,
      stdout: "",
      stderr:
        "userkeep: the definition belongs to the app 'quickstart-abcde', and the only store is .userkeep/my-app.sqlite; " +
        "name a store with --store sqlite:PATH or --app ID\n",
    });
  }
  expect(await keysIn(file)).toEqual(before);
  for (const command of commands) {
    const options = ["--definition", QUICKSTART, "--app", "my-app"];
    expect(await runIn(directory, ...command, ...options)).toMatchObject({ status: 0 });
  }
  expect((await keysIn(file))["my-app"]).toHaveLength(before["my-app"].length + 1);
});

test("keys are rotated only of an app that the store has", async () => {
  const directory = temporaryDirectory();
  const file = fs.realpathSync(await makeStore(directory));
  const before = await keysIn(file);
  const rotate = (...options) => runIn(directory, "keys", "rotate", "--definition", QUICKSTART, ...options);
  const store = ["--store", `sqlite:${file}`];
  const missing = (id) => `userkeep: there is no app '${id}' in ${file}: it has 'my-app'`;
  const fails = (stderr) => ({ status: 1, stdout: "", stderr });
  expect(await rotate(...store, "--app", "my-ap")).toEqual(fails(`${missing("my-ap")}; did you mean 'my-app'?\n`));
  expect(await rotate(...store)).toEqual(fails(`${missing("quickstart-abcde")}\n`));
  expect(await keysIn(file)).toEqual(before);

  fs.writeFileSync(path.join(directory, "empty.sqlite"), "");
  const empty = path.join(fs.realpathSync(directory), "empty.sqlite");
  expect(await rotate("--store", "sqlite:empty.sqlite", "--app", "my-app")).toEqual(
    fails(`userkeep: the file ${empty} is empty, and not a Userkeep store\n`),
  );

  expect(await rotate(...store, "--app", "my-app")).toMatchObject({
    status: 0,
    stdout: expect.stringMatching(new RegExp(`^new signing key of app 'my-app' in ${file}: \\w+\\n$`)),
  });
  expect((await keysIn(file))["my-app"]).toHaveLength(before["my-app"].length + 1);
});

test("a definition that is named and missing is an error", async () => {
  const directory = temporaryDirectory();
  const file = await makeStore(directory);
  fs.mkdirSync(path.join(directory, "dump"));
  fs.writeFileSync(path.join(directory, "file"), "");
  const real = fs.realpathSync(directory);
  const commands = [
    ["serve"],
    ["backup", "copy"],
    ["export", "out"],
    ["import", "dump"],
    ["doctor"],
    ["keys", "rotate"],
  ];
  const cases = [
    ["typo", `userkeep: the definition ${real}/typo cannot be read: there is no such directory\n`],
    ["file", `userkeep: the definition ${real}/file cannot be read: it is not a directory\n`],
    ["file/x", `userkeep: the definition ${real}/file/x cannot be read: it is not a directory\n`],
  ];
  for (const command of commands) {
    for (const [name, stderr] of cases) {
      for (const more of [
        [],
        ["--app", "my-app"],
        ["--store", `sqlite:${file}`],
        ["--app", "my-app", "--store", `sqlite:${file}`],
      ]) {
        const result = await runIn(directory, ...command, "--definition", name, ...more);
        expect([command, name, result]).toEqual([command, name, { status: 1, stdout: "", stderr }]);
      }
    }
  }
  const checked = await runIn(directory, "check", "typo");
  expect(checked).toMatchObject({ status: 1, stdout: expect.stringContaining("/typo: cannot be read: No such file") });
  process.env.USERKEEP_DEFINITION = path.join(real, "typo");
  try {
    await expect(Realm.openBackend({ store: "memory:" })).rejects.toThrow("/typo cannot be read: there is no such");
    await expect(Realm.serve({ store: "memory:" })).rejects.toThrow("/typo cannot be read: there is no such");
  } finally {
    delete process.env.USERKEEP_DEFINITION;
  }
  // A root file without a readable id would select another store.
  fs.cpSync(QUICKSTART, path.join(directory, "broken"), { recursive: true });
  fs.writeFileSync(path.join(directory, "broken/root_config.json"), "{ // comment\n}");
  const broken = await runIn(directory, "backup", "copy", "--definition", "broken");
  expect(broken.stderr).toContain(`the app's id cannot be read from ${real}/broken/root_config.json: `);
  fs.writeFileSync(path.join(directory, "broken/root_config.json"), '\ufeff{ "app_id": "with-mark" }');
  expect((await runIn(directory, "doctor", "--definition", "broken", "--store", "sqlite:none")).stderr).toContain(
    "none",
  );
  expect(
    (await runIn(directory, "keys", "rotate", "--definition", "broken", "--store", `sqlite:${file}`)).stderr,
  ).toContain("there is no app 'with-mark'");
});

test("no error shows the password of a connection string", async () => {
  const directory = temporaryDirectory();
  await makeStore(directory);
  for (const address of [
    "mongodb://user:hunter22@host",
    "mongodb+srv://user:hunter22@host/db",
    "mongodb://user:it's hunter22@host",
    " MongoDB://user:hunter22@host",
    "mongodb://user:hunter22",
    "user:hunter22@host",
  ]) {
    const calls = [
      ["export", "dump", address],
      ["keys", address],
      ["keys", "rotate", address],
      [address],
      ["help", address],
      ["serve", "--log-level", address],
      ["serve", "--port", address],
      ["serve", `--token-audience=${address}`],
      ["serve", `--${address}`],
      ["serve", "--public-url", address, "--definition", QUICKSTART],
      ["migrate", "--from", address, "--to", "memory:"],
      ["backup", "copy", "--store", `x${address}`],
      ...(/mongo/i.test(address)
        ? [
            ["check", address],
            ["init", address],
            ["backup", address],
            ["backup", "copy", "--app", address],
            ["backup", "copy", "--definition", address],
            ["serve", "--host", address, "--definition", QUICKSTART, "--store", "memory:"],
            ["serve", "--trust-proxy", address, "--definition", QUICKSTART, "--store", "memory:"],
          ]
        : []),
    ];
    for (const args of calls) {
      const { status, stdout, stderr } = await runIn(directory, ...args);
      expect([args, status]).toEqual([args, 1]);
      expect([args, `${stdout}${stderr}`]).toEqual([args, expect.not.stringContaining("hunter22")]);
    }
  }
  expect(fs.readdirSync(directory)).toEqual([".userkeep"]);
});

test("errors name the options as the command line does", async () => {
  const directory = temporaryDirectory();
  const cases = [
    [["serve", "--tls-cert", "x"], "TLS needs both --tls-cert and --tls-key, the files of the certificate and its key"],
    [["serve", "--public-url", "x"], 'Expected --public-url to begin with http:// or https://, got "x"'],
    [["serve"], "--app is required: the definition has no app_id"],
    [["serve", "--app", "a"], "name its directory with --definition or with USERKEEP_DEFINITION"],
    [
      ["serve", "--app", "a", "--definition", QUICKSTART, "--store", "sqlite:/proc/none/x"],
      'Choose another place with --store ("sqlite:PATH")',
    ],
  ];
  for (const [args, expected] of cases) {
    const { status, stdout, stderr } = await runIn(directory, ...args);
    expect({ status, stdout, stderr }).toEqual({ status: 1, stdout: "", stderr: expect.stringContaining(expected) });
  }
});

test("rejects a misspelled store without creating it", async () => {
  const directory = temporaryDirectory();
  const file = await makeStore(directory);
  fs.mkdirSync(path.join(directory, "dump/app"), { recursive: true });
  fs.writeFileSync(path.join(directory, "dump/app/people.bson"), "");
  const wrong = file.replace("my-app", "my-ap");
  const commands = [["backup", "copy"], ["export", "out"], ["import", "dump"], ["doctor"], ["keys", "rotate"]];
  for (const command of commands) {
    const options = ["--definition", QUICKSTART, "--app", "my-ap"];
    expect(await runIn(directory, ...command, ...options)).toEqual({
      status: 1,
      stdout: "",
      stderr: expect.stringMatching(/there is no store at .*my-ap\.sqlite; did you mean .*my-app\.sqlite\?\n$/),
    });
    expect(await runIn(directory, ...command, ...options, "--store", `sqlite:${wrong}`)).toMatchObject({ status: 1 });
    expect(await runIn(directory, ...command, ...options, "--store", "memory:")).toEqual({
      status: 1,
      stdout: "",
      stderr: "userkeep: a store in memory is gone when its process ends; name another one with --store\n",
    });
  }
  expect(fs.readdirSync(path.dirname(file)).filter((name) => name.startsWith("my-ap."))).toEqual([]);
  expect(await runIn(directory, "import", "dump", "--create", "--store", "memory:")).toEqual({
    status: 1,
    stdout: "",
    stderr: "userkeep: a store in memory is gone when its process ends; name another one with --store\n",
  });
  const far = await runIn(directory, "import", "dump", "--store", "sqlite:new/store.sqlite");
  expect(far.stderr).toMatch(/there is no store at .*store\.sqlite; --create creates it\n$/);
  expect(await runIn(directory, "import", "dump", "--store", "sqlite:new/store.sqlite", "--create")).toMatchObject({
    status: 0,
  });
});

test("the progress bar fits the terminal, and shows the rate and the remaining time", () => {
  let now = 0;
  const line = new ProgressLine(() => now);
  const at = (seconds, done, columns = 80, stage = "app.people") => {
    now = seconds * 1000;
    return line.text({ stage, done, total: 100_000 }, columns);
  };
  expect(at(0, 0)).toBe(`[${".".repeat(30)}]   0% app.people`);
  expect(at(10, 25_000)).toBe(`[${"#".repeat(8)}${".".repeat(22)}]  25% 2.50k/s 0:30 left app.people`);
  // A stage may report 0 between two steps; the bar does not go back.
  expect(at(10, 0)).toContain(" 25% 2.50k/s");
  expect(at(20, 50_000, 40)).toBe("[###..]  50% 2.50k/s 0:20 left app.peop");
  expect(at(20, 100_000)).toContain("100% 5.00k/s 0:00 left");
  for (const stage of ["app.people", "x".repeat(300), "\u{2603}".repeat(300), "a\u001b[2Jb\nc"]) {
    for (let columns = 1; columns <= 120; columns++) {
      const text = at(30, 60_000, columns, stage);
      const width = [...text].reduce((sum, character) => sum + (character < "\x7f" ? 1 : 2), 0);
      expect(width).toBeLessThan(columns);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: the test searches for them
      expect(text).not.toMatch(/[\u0000-\u001f]/);
    }
  }
  const written = [];
  const terminal = { isTTY: true, columns: 40, write: (text) => written.push(text) };
  const shown = showProgress(terminal);
  shown.onProgress({ stage: "pages", done: 1, total: 0 });
  terminal.columns = 20;
  shown.onProgress({ stage: "x".repeat(50), done: 1, total: 2 });
  shown.end();
  expect(written[1].length).toBeLessThan("\r\x1b[K".length + 20);
  expect(written.at(-1)).toBe("\r\x1b[K");
  expect(showProgress({ isTTY: false }).onProgress).toBeUndefined();
});
