"use strict";

// The command line itself: help, mistakes in the arguments, the choice of the store, the progress bar.

const { execFile } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { promisify } = require("node:util");
const { QUICKSTART, ROOT, openBackend, temporaryDirectory, userkeep } = require("./helpers.js");
const { ProgressLine, showProgress } = require("../lib/cli/progress.js");
const { closest } = require("../lib/suggest.js");
const { version } = require("../package.json");

const run = promisify(execFile);
const COMMANDS = ["init", "check", "serve", "keys", "backup", "export", "import", "migrate", "doctor"];

/** Runs the command line in a directory; its exit status and what it has printed. */
async function runIn(cwd, ...args) {
  const env = { ...process.env, NODE_ENV: "production", USERKEEP_STORE: "", USERKEEP_DEFINITION: "" };
  try {
    const { stdout, stderr } = await run(process.execPath, [path.join(ROOT, "bin/userkeep.js"), ...args], { cwd, env });
    return { status: 0, stdout, stderr };
  } catch ({ code, stdout, stderr }) {
    return { status: code, stdout, stderr };
  }
}

/** Makes the store of an app with one document, as the app itself does. */
async function makeStore(baseFilePath, id = "my-app") {
  const backend = await openBackend({ id, definition: QUICKSTART, baseFilePath, store: undefined });
  await backend.collection("app", "people").insertOne({ _id: id });
  await backend.close();
  return path.join(baseFilePath, ".userkeep", `${encodeURIComponent(id)}.sqlite`);
}

test("every command has its help, with the default of each option", async () => {
  const all = await userkeep("--help");
  expect(all).toEqual({
    status: 0,
    stdout: expect.stringMatching(/^Usage: userkeep <command> \[options\]\n/),
    stderr: "",
  });
  expect(await userkeep("-h")).toEqual(all);
  expect(await userkeep("help")).toEqual(all);
  expect(await userkeep()).toEqual(all);
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

test("a misspelled command, option or value is shown, with the one that was meant", async () => {
  const cases = [
    [["dcotor"], "userkeep: there is no command 'dcotor'; did you mean 'doctor'?\n"],
    [["dance"], "userkeep: there is no command 'dance'\n"],
    [["serve", "--prot", "1"], "userkeep: unknown option '--prot'; did you mean --port?\n"],
    [["serve", "--loud"], "userkeep: unknown option '--loud'\n"],
    [["serve", "-x"], "userkeep: unknown option '-x'\n"],
    [["serve", "--port"], "userkeep: --port needs a value: --port PORT\n"],
    [["serve", "--host", "--port", "1"], "userkeep: --host needs a value: --host HOST\n"],
    [["serve", "--port", "70000"], "userkeep: --port must be from 0 to 65535, got '70000'\n"],
    [["serve", "--port=-1"], "userkeep: --port must be a number, got '-1'\n"],
    [["serve", "--max-time", "0"], "userkeep: --max-time must be from 1 to 9007199254740991, got '0'\n"],
    [["serve", "--token-audience=no"], "userkeep: --token-audience takes no value, got 'no'\n"],
    [["serve", "--log-level", "inof"], "must be off, error, warn, info or debug, got 'inof'; did you mean 'info'?\n"],
    [["serve", "extra"], "userkeep: unexpected argument 'extra'\n"],
    [["keys", "rotat"], "userkeep keys has one action, rotate, got 'rotat'\n"],
    [["backup"], "userkeep: the file of the copy is missing\n"],
    [["help", "chekc"], "userkeep: there is no command 'chekc'; did you mean 'check'?\n"],
  ];
  for (const [args, expected] of cases) {
    expect(await userkeep(...args)).toEqual({ status: 1, stdout: "", stderr: expect.stringContaining(expected) });
  }
  expect(closest("read".repeat(1000), ["read"])).toBeUndefined();
});

test("init writes the app's id, so that the commands need no other", async () => {
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

test("the commands take the only store that there is", async () => {
  const directory = temporaryDirectory();
  const none = await runIn(directory, "backup", "copy.sqlite");
  expect(none.stderr).toBe("userkeep: there is no store in .userkeep; name one with --store sqlite:PATH or --app ID\n");
  const file = fs.realpathSync(await makeStore(directory, "my app"));
  expect(await runIn(directory, "backup", "copy.sqlite")).toMatchObject({ status: 0, stdout: `copied ${file}\n` });
  expect(await runIn(directory, "export", "dump")).toMatchObject({
    status: 0,
    stdout: expect.stringMatching(/^wrote \d+ documents of /),
  });
  expect(await runIn(directory, "import", "dump")).toMatchObject({ status: 0 });
  const checked = await runIn(directory, "doctor");
  // A database on MongoDB cannot be named after this app.
  expect([checked.status, checked.stdout]).toEqual([
    1,
    expect.stringMatching(/^the database 'userkeep_my app': MongoDB does not accept its name: .*\n$/),
  ]);
  const definition = ["--definition", QUICKSTART];
  const rotated = await runIn(directory, "keys", "rotate", ...definition);
  expect(rotated).toMatchObject({ status: 0, stdout: expect.stringMatching(/^The key that signs now: \w+\n$/) });
  await makeStore(directory, "other");
  const several = await runIn(directory, "doctor");
  expect(several.stderr).toContain("there are 2 stores: my%20app.sqlite, other.sqlite; name one with");
  expect(await runIn(directory, "doctor", "--app", "other")).toMatchObject({ status: 0 });
});

test("a misspelled store is an error, and makes none", async () => {
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
  const far = await runIn(directory, "import", "dump", "--store", "sqlite:new/store.sqlite");
  expect(far.stderr).toMatch(/there is no store at .*store\.sqlite; --create makes a new one\n$/);
  expect(await runIn(directory, "import", "dump", "--store", "sqlite:new/store.sqlite", "--create")).toMatchObject({
    status: 0,
  });
});

test("a progress bar fits its terminal, and shows the rate and the time left", () => {
  let now = 0;
  const line = new ProgressLine(() => now);
  const at = (seconds, done, columns = 80, stage = "app.people") => {
    now = seconds * 1000;
    return line.text({ stage, done, total: 100_000 }, columns);
  };
  expect(at(0, 0)).toBe(`[${".".repeat(30)}]   0% app.people`);
  expect(at(10, 25_000)).toBe(`[${"#".repeat(8)}${".".repeat(22)}]  25% 2.50k/s 0:30 left app.people`);
  // A stage reports 0 between two steps.
  expect(at(10, 0)).toContain(" 25% 2.50k/s");
  expect(at(20, 50_000, 40)).toBe("[###..]  50% 2.50k/s 0:20 left app.peop");
  expect(at(20, 100_000)).toContain("100% 5.00k/s 0:00 left");
  for (const stage of ["app.people", "x".repeat(300), "\u{2603}".repeat(300), "a\u001b[2Jb\nc"]) {
    for (let columns = 1; columns <= 120; columns++) {
      const text = at(30, 60_000, columns, stage);
      const width = [...text].reduce((sum, character) => sum + (character < "\x7f" ? 1 : 2), 0);
      expect(width).toBeLessThan(columns);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
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
