"use strict";

// Reloading the definition while an app or a server runs.

const fs = require("node:fs");
const path = require("node:path");
const {
  MODE,
  Realm,
  STORE,
  collectionFile,
  eventually,
  logInNew,
  openBackend,
  openEmbedded,
  preImages,
  readAndWriteAll,
  rulesFile,
  serve,
  temporaryDirectory,
  writeDefinition,
} = require("./helpers.js");

const RULES = rulesFile("app", "notes");

const rulesWith = (role) => ({ database: "app", collection: "notes", roles: [role], filters: [] });

/** Opens an app that watches its definition. `reload(files)` writes files and waits. */
async function open(files = {}, options = {}) {
  const definition = writeDefinition({
    [RULES]: rulesWith(readAndWriteAll),
    [collectionFile("app", "notes")]: preImages,
    ...files,
  });
  const lines = [];
  const logger = (level, text) => lines.push(`${level}: ${text}`);
  const app = options.opens === false ? undefined : openEmbedded({ definition, logger, watchDefinition: true });
  const write = (changes) => {
    for (const [name, contents] of Object.entries(changes)) {
      const file = path.join(definition, name);
      fs.mkdirSync(path.dirname(file), { recursive: true });
      if (contents === null) {
        fs.rmSync(file);
      } else {
        fs.writeFileSync(file, typeof contents === "string" ? contents : JSON.stringify(contents));
      }
    }
  };
  const waitFor = (pattern, from = 0) =>
    eventually(() => expect(lines.slice(from).join("\n")).toMatch(pattern)).then(() => lines.slice(from).join("\n"));
  const reload = async (changes) => {
    const from = lines.length;
    write(changes);
    return waitFor(/the definition was (not )?reloaded/, from);
  };
  return { app, definition, logger, lines, write, waitFor, reload };
}

describe("watchDefinition", () => {
  test("reloads functions and values", async () => {
    const { app, reload } = await open({
      "functions/version.js": "exports = () => 1 + context.values.get('base');",
      "values/base.json": { name: "base", value: 0 },
    });
    const user = await logInNew(app);
    expect(await user.functions.version()).toBe(1);
    await reload({ "functions/version.js": "exports = () => 2 + context.values.get('base');" });
    expect(await user.functions.version()).toBe(2);
    await reload({ "values/base.json": { name: "base", value: 40 } });
    expect(await user.functions.version()).toBe(42);
  });

  test("adds functions to a definition without functions, and removes them", async () => {
    const { app, reload } = await open();
    const user = await logInNew(app);
    await expect(user.functions.late()).rejects.toThrow("function not found");
    await reload({ "functions/late.js": "exports = () => 'here';" });
    expect(await user.functions.late()).toBe("here");
    await reload({ "functions/late.js": null });
    await expect(user.functions.late()).rejects.toThrow("function not found");
  });

  test("reloads rules, also those of open streams", async () => {
    const { app, reload } = await open();
    const user = await logInNew(app);
    const notes = user.mongoClient("mongodb-atlas").db("app").collection("notes");
    await notes.insertOne({ _id: 1 });
    const stream = notes.watch();
    const first = stream.next();
    await notes.insertOne({ _id: 2 });
    expect((await first).value).toMatchObject({ operationType: "insert" });
    const readOnly = {
      ...readAndWriteAll,
      name: "hidden",
      document_filters: { read: { shown: true }, write: { shown: true } },
    };
    await reload({ [RULES]: rulesWith(readOnly) });
    expect(await notes.find()).toEqual([]);
    const second = stream.next();
    await notes.insertOne({ _id: 3 }).catch(() => {});
    await notes.insertOne({ _id: 4, shown: true });
    expect((await second).value.fullDocument).toEqual({ _id: 4, shown: true });
    await stream.return();
  });

  test("fails closed if a provider, rules or a function are removed", async () => {
    const { app, definition, reload } = await open({ "functions/gone.js": "exports = () => 1;" });
    const user = await logInNew(app);
    const notes = user.mongoClient("mongodb-atlas").db("app").collection("notes");
    await notes.insertOne({ _id: 1 });
    const stream = notes.watch();
    const next = stream.next();
    next.catch(() => {});
    const providers = JSON.parse(fs.readFileSync(path.join(definition, "auth/providers.json"), "utf8"));
    providers["anon-user"].disabled = true;
    await reload({ "auth/providers.json": providers, [RULES]: null, "functions/gone.js": null });
    await expect(app.logIn(Realm.Credentials.anonymous(false))).rejects.toThrow("unsupported");
    await expect(notes.findOne()).rejects.toThrow();
    await expect(next).rejects.toThrow();
    await expect(user.functions.gone()).rejects.toThrow("function not found");
    // The session goes on.
    await user.refreshCustomData();
    expect(user.isLoggedIn).toBe(true);
  });

  test.each([
    ["a file that is not JSON", { [RULES]: "{ roles: [" }, /rules\.json/],
    [
      "a rule that cannot be checked",
      { [RULES]: rulesWith({ ...readAndWriteAll, apply_when: { "%%unknown": 1 } }) },
      /rules\.json/,
    ],
    [
      "a function that is not JavaScript",
      { "functions/version.js": "exports = () => {" },
      /version\.js:1:\d+: SyntaxError/,
    ],
    [
      "a value whose secret is missing",
      { "values/s.json": { name: "s", value: "missing", from_secret: true } },
      /missing/,
    ],
  ])("keeps the definition in force if the new one has %s", async (_what, broken, why) => {
    const { app, reload } = await open({ "functions/version.js": "exports = () => 1;" });
    const user = await logInNew(app);
    const notes = user.mongoClient("mongodb-atlas").db("app").collection("notes");
    const said = await reload(broken);
    expect(said).toMatch(/error: the definition was not reloaded, and the one before stays in force/);
    expect(said).toMatch(why);
    expect(await user.functions.version()).toBe(1);
    await notes.insertOne({ _id: 1 });
    await reload({
      [RULES]: rulesWith(readAndWriteAll),
      "functions/version.js": "exports = () => 2;",
      "values/s.json": "",
    });
    expect(await user.functions.version()).toBe(2);
  });

  test("finishes calls under way with the definition with which they began", async () => {
    const source = (version) => `exports = async (ms) => {
      const before = ${version};
      await new Promise((resolve) => setTimeout(resolve, ms));
      return [before, await context.functions.execute("inner"), context.values.get("v")];
    };`;
    const version = (number) => ({
      "functions/outer.js": source(number),
      "functions/inner.js": `exports = () => ${number};`,
      "values/v.json": { name: "v", value: number },
    });
    const { app, reload } = await open(version(1));
    const user = await logInNew(app);
    const slow = [user.functions.outer(2000), user.functions.outer(2000)];
    await user.functions.outer(0);
    await reload(version(2));
    expect(await user.functions.outer(0)).toEqual([2, 2, 2]);
    expect(await Promise.all(slow)).toEqual([
      [1, 1, 1],
      [1, 1, 1],
    ]);
    expect(await user.functions.outer(0)).toEqual([2, 2, 2]);
  });

  test("never mixes two definitions while calls and changes go on", async () => {
    const version = (number) => ({
      "functions/outer.js": `exports = () => [${number}, context.functions.execute("inner"), context.values.get("v")];`,
      "functions/inner.js": `exports = () => ${number};`,
      "values/v.json": { name: "v", value: number },
    });
    const { app, lines, write } = await open(version(0));
    const user = await logInNew(app);
    const seen = new Set();
    let isOver = false;
    const calls = Array.from({ length: 4 }, async () => {
      while (!isOver) {
        const [first, ...others] = await user.functions.outer();
        expect(others).toEqual([first, first]);
        seen.add(first);
      }
    });
    for (let round = 1; round <= 5; round++) {
      const from = lines.length;
      write(version(round));
      await eventually(() => expect(lines.slice(from).join()).toMatch(/the definition was reloaded/));
    }
    await user.functions.outer();
    isOver = true;
    await Promise.all(calls);
    expect(await user.functions.outer()).toEqual([5, 5, 5]);
    expect(seen.size).toBeGreaterThan(2);
  });

  test("adds functions for other apps of the process, which do not watch", async () => {
    const { definition, logger, reload } = await open({}, { opens: false });
    // Apps on one file share a backend.
    const options = {
      id: "test-app",
      definition,
      logger,
      store: `sqlite:${path.join(temporaryDirectory(), "a.sqlite")}`,
    };
    const app = openEmbedded(options);
    const watching = await openBackend({ ...options, watchDefinition: true });
    const user = await logInNew(app);
    await reload({ "functions/late.js": "exports = () => 'here';" });
    await watching.close();
    expect(await user.functions.late()).toBe("here");
  });

  test("follows a link to the definition", async () => {
    const [one, two] = [1, 2].map((number) =>
      writeDefinition({ "functions/version.js": `exports = () => ${number};` }),
    );
    const link = path.join(temporaryDirectory(), "current");
    fs.symlinkSync(one, link);
    const app = openEmbedded({ definition: link, watchDefinition: true });
    const user = await logInNew(app);
    expect(await user.functions.version()).toBe(1);
    fs.symlinkSync(two, `${link}.new`);
    fs.renameSync(`${link}.new`, link);
    const deadline = Date.now() + 10_000;
    while ((await user.functions.version()) !== 2 && Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect(await user.functions.version()).toBe(2);
  });

  test("reports what needs a restart", async () => {
    const { definition, reload } = await open();
    const root = JSON.parse(fs.readFileSync(path.join(definition, "root_config.json"), "utf8"));
    expect(await reload({ "root_config.json": { ...root, app_id: "another-id" } })).toMatch(/'another-id'.*restart/);
  });

  test("runs functions on the program's own thread too", async () => {
    const definition = writeDefinition({ "functions/version.js": "exports = () => 1;" });
    const lines = [];
    const logger = (_level, text) => lines.push(text);
    const app = openEmbedded({ definition, logger, watchDefinition: true, functions: { threads: 0 } });
    const user = await logInNew(app);
    expect(await user.functions.version()).toBe(1);
    fs.writeFileSync(path.join(definition, "functions/version.js"), "exports = () => new Error('x').stack;");
    await eventually(() => expect(lines).toContain("the definition was reloaded"));
    // Debuggers find breakpoints by the names of the files and the lines.
    expect(await user.functions.version()).toContain(`${path.join(definition, "functions/version.js")}:1:17`);
  });

  test("has no effect without files", async () => {
    const lines = [];
    const logger = (level, text) => lines.push(`${level}: ${text}`);
    const directory = process.cwd();
    process.chdir(require("node:os").tmpdir());
    try {
      openEmbedded({ definition: undefined, logger, watchDefinition: true });
    } finally {
      process.chdir(directory);
    }
    expect(lines.join("\n")).toMatch(/warn: watchDefinition has no effect/);
    expect(() => openEmbedded({ id: "other", watchDefinition: "yes" })).toThrow("'watchDefinition'");
  });
});

describe("a server", () => {
  test("reloads its definition, and its list of origins", async () => {
    const { definition, logger, reload } = await open(
      { "functions/version.js": "exports = () => 1;" },
      { opens: false },
    );
    const server = await serve({ definition, logger, watchDefinition: true });
    const app = new Realm.App({ id: "test-app", baseUrl: server.url, logger: null, metadata: { mode: "inMemory" } });
    const user = await logInNew(app);
    expect(await user.functions.version()).toBe(1);
    const root = JSON.parse(fs.readFileSync(path.join(definition, "root_config.json"), "utf8"));
    await reload({
      "functions/version.js": "exports = () => 2;",
      "root_config.json": { ...root, allowed_request_origins: ["https://app.example"] },
    });
    expect(await user.functions.version()).toBe(2);
    const from = (origin) =>
      fetch(`${server.url}/api/client/v2.0/app/test-app/location`, { headers: { Origin: origin } });
    expect((await from("https://app.example")).status).toBe(200);
    expect((await from("https://evil.example")).status).toBe(403);
    await app.close();
  });
});

describe("backend.admin.runFunction", () => {
  test("runs a function as the system user or as a user", async () => {
    const definition = writeDefinition({
      "functions/who.js":
        "exports = (text) => { console.log(text); return [context.user.type, context.user.id, context.runningAsSystem()]; };",
      "functions/fail.js": "exports = () => { console.error('no'); throw new RangeError('bad'); };",
      "functions/config.json": [
        { name: "who", private: true, can_evaluate: { "%%user.id": "none" } },
        { name: "fail" },
      ],
    });
    const app = openEmbedded({ definition });
    const user = await logInNew(app);
    const backend = await openBackend({ definition, id: app.id, store: STORE });
    const { runFunction } = { runFunction: backend.admin.runFunction.bind(backend.admin) };
    expect(await runFunction("who", ["hello"])).toEqual({
      value: ["system", undefined, true],
      messages: [{ level: "info", text: "hello" }],
      droppedMessages: 0,
    });
    expect((await runFunction("who", ["x"], { user: user.id })).value).toEqual(["normal", user.id, false]);
    expect(await runFunction("fail")).toMatchObject({
      error: {
        message: "RangeError: bad",
        errorCode: "FunctionExecutionError",
        stack: expect.stringContaining("fail.js:1"),
      },
      messages: [{ level: "error", text: "no" }],
    });
    await expect(runFunction("none")).rejects.toThrow("function not found: 'none'");
    await expect(runFunction("who", [], { user: "6500000000000000000000aa" })).rejects.toThrow("user not found");
    const [entry] = await backend.admin.logs({ type: "function" });
    expect(entry).toMatchObject({ name: "fail", hook: "operator" });
  });
});

if (MODE === "embedded") {
  test("an open app that watches its definition does not keep the process alive", async () => {
    const { execFileSync } = require("node:child_process");
    const definition = writeDefinition();
    const program = `
      const Realm = require(${JSON.stringify(path.resolve(__dirname, ".."))});
      const app = new Realm.App({ id: "a", definition: ${JSON.stringify(definition)}, store: "memory:", watchDefinition: true, logger: null });
      app.logIn(Realm.Credentials.anonymous()).then(() => console.log("done"));`;
    const begun = Date.now();
    expect(execFileSync(process.execPath, ["-e", program], { encoding: "utf8", timeout: 20_000 })).toBe("done\n");
    expect(Date.now() - begun).toBeLessThan(10_000);
  });
}
