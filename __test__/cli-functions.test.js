"use strict";

// The commands that show the log, and that list and run functions.

const { spawn } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { ROOT, eventually, logInNew, openKept, temporaryDirectory, userkeep, writeDefinition } = require("./helpers.js");

const SOURCES = {
  "functions/greet.js": `exports = function greet(name, more) {
    console.log("greeting", name);
    return { name, more, system: context.runningAsSystem() };
  };`,
  "functions/tools/fail.js": "exports = function fail() {\n  console.error('now');\n  throw new RangeError('bad');\n};",
  "functions/config.json": [
    { name: "greet", private: true, can_evaluate: { "%%user.id": "none" } },
    { name: "tools/fail", run_as_system: true },
    { name: "lost" },
  ],
};

/** Opens an app on a file, calls functions, and closes it. Returns the options of the commands. */
async function makeApp() {
  const definition = writeDefinition(SOURCES);
  const baseFilePath = temporaryDirectory();
  const app = await openKept(baseFilePath, { definition });
  const user = await logInNew(app);
  const error = await user.callFunction("tools/fail").catch((thrown) => thrown);
  await app.close();
  const store = `sqlite:${path.join(baseFilePath, ".userkeep", "test-app.sqlite")}`;
  return { definition, user, error, options: ["--store", store, "--app", "test-app", "--definition", definition] };
}

test("functions list shows each function of the definition", async () => {
  const definition = writeDefinition(SOURCES);
  const { status, stdout } = await userkeep("functions", "list", "--definition", definition);
  expect([status, stdout.split("\n")]).toEqual([
    0,
    ["greet  (private, has a condition)", "lost  (has no source)", "tools/fail  (runs as system)", ""],
  ]);
  const json = await userkeep("function", "list", "--definition", definition, "-f", "json");
  expect(json.stdout.trim().split("\n").map(JSON.parse)[2]).toEqual({
    name: "tools/fail",
    file: "functions/tools/fail.js",
    private: false,
    runAs: "system",
    hasCondition: false,
    hasSource: true,
  });
});

test("functions run calls a function as the system user, or as a user", async () => {
  const { user, options } = await makeApp();
  const run = (...args) => userkeep("functions", "run", ...args, ...options);
  expect(await run("greet", "--args", "ada", "--args", '{"n": 5, "id": {"$oid": "6500000000000000000000aa"}}')).toEqual(
    {
      status: 0,
      stdout: 'greeting ada\n{"name":"ada","more":{"n":5,"id":{"$oid":"6500000000000000000000aa"}},"system":true}\n',
      stderr: "",
    },
  );
  const json = await run("--name", "greet", "--args=-1.5", "--user", user.id, "-f", "json");
  expect(JSON.parse(json.stdout)).toEqual({
    result: { name: -1.5, more: null, system: false },
    logs: [{ level: "info", text: "greeting -1.5" }],
  });
  const failed = await run("tools/fail");
  expect(failed.status).toBe(1);
  expect(failed.stdout).toMatch(
    /^error: now\nerror: RangeError: bad\n {4}at fail \(.*functions\/tools\/fail\.js:3:9\)\n/,
  );
  expect(await run("none")).toMatchObject({ status: 1, stderr: "userkeep: function not found: 'none'\n" });
  expect(await run("greet", "--user", "x")).toMatchObject({ status: 1, stderr: "userkeep: user not found\n" });
  expect(await userkeep("functions", "run")).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("is missing"),
  });
  expect(await userkeep("functions", "fly")).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("list or run"),
  });
});

test("logs shows the entries, the oldest first", async () => {
  const { user, options } = await makeApp();
  const { status, stdout, stderr } = await userkeep("logs", ...options);
  expect([status, stderr]).toEqual([0, ""]);
  const lines = stdout.trimEnd().split("\n");
  const time = "\\d{4}-\\d\\d-\\d\\dT[\\d:.]+Z \\[[\\d.]+ ms\\]";
  expect(lines[0]).toMatch(
    new RegExp(`^${time} Authentication -> login \\(local-userpass\\): OK request=\\w{24} user=${user.id}$`),
  );
  expect(lines[1]).toMatch(
    new RegExp(
      `^${time} Function -> tools/fail: FunctionExecutionError: RangeError: bad request=\\w{24} user=${user.id}$`,
    ),
  );
  expect(lines[2]).toBe("  error: now");
  expect(lines[3]).toMatch(/^ {2}at fail \(.*functions\/tools\/fail\.js:3:9\)$/);
  const errors = await userkeep("logs", "list", "--errors", "--type", "function", "-l", "5", "-f", "json", ...options);
  const [entry, ...others] = errors.stdout.trim().split("\n").map(JSON.parse);
  expect(entry).toMatchObject({ type: "FUNCTION", name: "tools/fail", user: user.id });
  expect(others).toEqual([]);
  const one = await userkeep("logs", `http://host/logs?co_id=${entry.requestId}`, ...options);
  expect(one.stdout.split("\n")[0]).toBe(lines[1]);
  expect((await userkeep("logs", "--start", "2999-01-01", ...options)).stdout).toBe("");
  expect(await userkeep("logs", "--start", "soon", ...options)).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("--start must be a time"),
  });
});

test("logs ends quietly if its reader ends, and rejects unknown types", async () => {
  const { options } = await makeApp();
  const child = spawn(process.execPath, [path.join(ROOT, "bin/userkeep.js"), "logs", "-f", "json", ...options]);
  child.stdout.destroy();
  let errors = "";
  child.stderr.on("data", (chunk) => {
    errors += chunk;
  });
  expect([await new Promise((resolve) => child.on("close", resolve)), errors]).toEqual([0, ""]);
  expect(await userkeep("logs", "--type", "functions", ...options)).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("did you mean 'function'?"),
  });
});

test("logs -f json escapes control characters", async () => {
  const { options } = await makeApp();
  await userkeep("functions", "run", "greet", "--args", "a\u009b2J\u202e", ...options);
  const { stdout } = await userkeep("logs", "--type", "function", "-f", "json", ...options);
  expect(stdout).toContain("\\u009b2J\\u202e");
  expect(stdout).not.toMatch(/[\u0080-\u009f\u202e]/);
  expect(stdout.trim().split("\n").map(JSON.parse).at(-1).arguments).toEqual(["a\u009b2J\u202e"]);
});

test("logs --tail shows entries as they are written", async () => {
  const { definition, options } = await makeApp();
  const child = spawn(process.execPath, [path.join(ROOT, "bin/userkeep.js"), "logs", "--tail", ...options]);
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  try {
    // Another process writes to the same store.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    await userkeep("functions", "run", "greet", "--args", "tail", ...options);
    await eventually(() => expect(output).toMatch(/Function -> greet \(operator\): OK .*\n {2}greeting tail\n/));
    expect(output).not.toContain("tools/fail");
  } finally {
    child.kill("SIGTERM");
  }
  expect(await new Promise((resolve) => child.on("exit", resolve))).toBe(0);
  expect(fs.existsSync(definition)).toBe(true);
});

test("serve --watch reloads the definition and prints console lines", async () => {
  const definition = writeDefinition({ "functions/say.js": "exports = () => { console.log('first words'); };" });
  const args = ["serve", "--watch", "--port", "0", "--store", "memory:", "--definition", definition];
  const child = spawn(process.execPath, [path.join(ROOT, "bin/userkeep.js"), ...args]);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk) => {
      output += chunk;
    });
  }
  try {
    const url = await eventually(() => {
      const [, found] = /Listening at (\S+)/.exec(output) ?? [];
      expect(found).toBeDefined();
      return found;
    });
    const { Realm } = require("./helpers.js");
    const app = new Realm.App({ id: "quickstart-abcde", baseUrl: url, logger: null, metadata: { mode: "inMemory" } });
    const user = await logInNew(app);
    await user.callFunction("say");
    await eventually(() => expect(output).toMatch(/userkeep info: first words function=say/));
    fs.writeFileSync(path.join(definition, "functions/say.js"), "exports = () => { console.log('other words'); };");
    await eventually(() => expect(output).toContain("the definition was reloaded"));
    await user.callFunction("say");
    await eventually(() => expect(output).toContain("other words"));
    fs.writeFileSync(path.join(definition, "functions/say.js"), "exports = () => {");
    await eventually(() => expect(output).toMatch(/error: .*say\.js:1:\d+: SyntaxError|not reloaded.*say\.js:1/));
    await user.callFunction("say");
    await app.close();
  } finally {
    child.kill("SIGTERM");
  }
  expect(await new Promise((resolve) => child.on("exit", resolve))).toBe(0);
});

test("entries of a program that ends at once are written", async () => {
  const definition = writeDefinition(SOURCES);
  const baseFilePath = temporaryDirectory();
  const program = `
    const Realm = require(${JSON.stringify(ROOT)});
    const app = new Realm.App({ id: "test-app", definition: ${JSON.stringify(definition)}, baseFilePath: ${JSON.stringify(baseFilePath)}, logger: null });
    app.logIn(Realm.Credentials.anonymous()).then((user) => user.callFunction("tools/fail")).catch(() => {});`;
  require("node:child_process").execFileSync(process.execPath, ["-e", program]);
  const store = `sqlite:${path.join(baseFilePath, ".userkeep", "test-app.sqlite")}`;
  const { stdout } = await userkeep("logs", "--store", store, "--app", "test-app", "--definition", definition);
  expect(stdout).toMatch(/Authentication -> login \(anon-user\)[\s\S]*Function -> tools\/fail/);
});
