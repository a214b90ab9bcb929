"use strict";

const { execFileSync, spawnSync } = require("node:child_process");
const { PASSWORD, ROOT, Realm, eventually, logInNew, openEmbedded, serve } = require("./helpers.js");

/** The run-time names of `realm` 12.15, grouped by their kind in this package. */
const NAMES = {
  value: ["App", "AssertionError", "Auth", "BSON", "Credentials", "MetadataMode", "MongoDB", "ProviderType"]
    .concat(["PushClient", "Realm", "Services", "TypeAssertionError", "Types", "User", "UserState", "defaultPath"])
    .concat(["clearTestState", "flags", "kmToRadians", "miToRadians", "setLogLevel", "setLogger", "shutdown"]),
  enumeration: ["ClientResetMode", "ConnectionState", "NumericLogLevel", "OpenRealmBehaviorType"]
    .concat([
      "OpenRealmTimeOutBehavior",
      "ProgressDirection",
      "ProgressMode",
      "ProxyType",
      "RealmEvent",
      "SessionState",
    ])
    .concat(["SessionStopPolicy", "SubscriptionSetState", "UpdateMode", "WaitForSync"]),
  class: ["ClientResetError", "Collection", "CompensatingWriteError", "Counter", "Dictionary", "List", "Object"]
    .concat(["OrderedCollection", "ProgressRealmPromise", "PropertySchemaParseError", "Results", "SchemaParseError"])
    .concat(["Set", "SyncError"]),
  function: ["copyBundledRealmFiles", "createTemplateObject", "deleteFile", "exists", "index", "mapTo"].concat([
    "schemaVersion",
  ]),
  rejecting: ["open"],
};

/** The names that the SDK does not have at the top level. */
const OWN_NAMES = ["ApiKeyAuth", "EmailPasswordAuth", "MongoDBCollection", "default", "openBackend", "serve"];

const SYNC_METHODS = [
  "enableSessionMultiplexing",
  "getAllSyncSessions",
  "getSyncSession",
  "initiateClientReset",
].concat(["reconnect", "setLogLevel", "setLogger", "setUserAgent"]);
const SYNC_CLASSES = ["BaseSubscriptionSet", "MutableSubscriptionSet", "Session", "Subscription", "SubscriptionSet"];

/** The error message of names that belong to the Realm database. */
const sentence = (name) =>
  `${name} belongs to the Realm database, which Userkeep does not include: see userkeep/docs/realm-database.md`;

/** Returns the error that a call throws, or undefined. */
function errorOf(call) {
  try {
    call();
  } catch (error) {
    return error;
  }
  return undefined;
}

afterEach(() => Realm.setLogLevel("info"));

describe("the names of the SDK", () => {
  test("are complete, with no additions except our own", () => {
    const expected = [...Object.values(NAMES).flat(), ...OWN_NAMES];
    const builtIn = ["length", "name", "prototype"];
    expect(
      Object.getOwnPropertyNames(Realm)
        .filter((name) => !builtIn.includes(name))
        .sort(),
    ).toEqual(expected.sort());
  });

  test("have the SDK's aliases", () => {
    expect(Realm.Realm).toBe(Realm);
    expect(Realm.default).toBe(Realm);
    expect(Realm.EmailPasswordAuth).toBe(Realm.Auth.EmailPasswordAuth);
    expect(Realm.ApiKeyAuth).toBe(Realm.Auth.ApiKeyAuth);
    expect(Realm.MongoDBCollection).toBe(Realm.Services.MongoDB.MongoDBCollection);
    expect(Realm.App.Credentials).toBe(Realm.Credentials);
    const app = openEmbedded();
    expect(app.emailPasswordAuth).toBeInstanceOf(Realm.EmailPasswordAuth);
  });

  test.each(NAMES.class)("%s can be extended and listed, and throws when it is constructed or called", (name) => {
    const Class = Realm[name];
    class Model extends Class {
      static schema = { name: "Model", properties: {} };
    }
    expect(Class.name).toBe(name);
    expect(Object.keys(Model)).toEqual(["schema"]);
    expect({} instanceof Class).toBe(false);
    expect(Object.create(Model.prototype)).toBeInstanceOf(Class);
    for (const use of [() => new Class(), () => new Model(), () => Class()]) {
      expect(errorOf(use)).toEqual(new Error(sentence(`Realm.${name}`)));
    }
  });

  test("keep the inheritance of the SDK's classes", () => {
    const { ClientResetError, Collection, Dictionary, List, OrderedCollection, Results, SyncError } = Realm;
    for (const Class of [List, Realm.Set, Results]) {
      expect(Object.getPrototypeOf(Class)).toBe(OrderedCollection);
    }
    expect(Object.getPrototypeOf(Dictionary)).toBe(Collection);
    expect(Object.create(ClientResetError.prototype)).toBeInstanceOf(SyncError);
    expect(Object.create(Realm.PropertySchemaParseError.prototype)).toBeInstanceOf(Realm.SchemaParseError);
    expect(Object.create(SyncError.prototype)).toBeInstanceOf(Error);
  });

  test.each(NAMES.function)("%s() throws", (name) => {
    expect(errorOf(() => Realm[name]({}))).toEqual(new Error(sentence(`Realm.${name}()`)));
  });

  test("new Realm() throws, and Realm.open() rejects", async () => {
    expect(errorOf(() => new Realm())).toEqual(new Error(sentence("new Realm()")));
    await expect(Realm.open({ schema: [] })).rejects.toEqual(new Error(sentence("Realm.open()")));
    await expect(Realm.open().progress(() => {})).rejects.toThrow(sentence("Realm.open()"));
    const opening = Realm.open();
    opening.cancel();
    await expect(opening).rejects.toThrow(sentence("Realm.open()"));
  });

  test("App.Sync lists all its names, and throws when one is used", () => {
    const { Sync } = Realm.App;
    const data = ["ConnectionState", "NumericLogLevel", "SubscriptionSetState", "SubscriptionsState"].concat([
      "downloadBeforeOpenBehavior",
      "openLocalRealmBehavior",
    ]);
    expect(Object.keys(Sync).sort()).toEqual([...SYNC_METHODS, ...SYNC_CLASSES, ...data].sort());
    for (const name of SYNC_METHODS) {
      expect(errorOf(() => Sync[name]())).toEqual(new Error(sentence(`Realm.App.Sync.${name}()`)));
    }
    for (const name of SYNC_CLASSES) {
      class Extended extends Sync[name] {}
      expect(errorOf(() => new Extended())).toEqual(new Error(sentence(`Realm.App.Sync.${name}`)));
    }
    expect(Sync.openLocalRealmBehavior).toEqual({ type: Realm.OpenRealmBehaviorType.OpenImmediately });
  });

  test("have the SDK's values in enumerations, and working conversions", () => {
    for (const name of NAMES.enumeration) {
      expect(Object.keys(Realm[name]).length).toBeGreaterThan(1);
    }
    expect(Realm.UpdateMode).toEqual({ Never: "never", Modified: "modified", All: "all" });
    expect(Realm.NumericLogLevel.Detail).toBe(3);
    expect(Realm.NumericLogLevel[8]).toBe("Off");
    expect(Realm.kmToRadians(6378.1)).toBe(1);
    expect(Realm.miToRadians(3963.16760121)).toBe(1);
    expect(Realm.Types.ObjectId).toBe(Realm.BSON.ObjectId);
    expect(Realm.Types.Date).toBe(Date);
    expect(Realm.Types.List).toBe(Realm.List);
    expect(Realm.flags.ALLOW_VALUES_ARRAYS).toBe(false);
  });

  test("can all be printed without an error", () => {
    const script = `console.log(require("util").inspect(require("userkeep"), { depth: 5, showHidden: true }).length > 1000)`;
    expect(execFileSync(process.execPath, ["-e", script], { cwd: ROOT, encoding: "utf8" })).toBe("true\n");
  });

  test("let a file that defines models log users in", async () => {
    class Task extends Realm.Object {
      static schema = { name: "Task", primaryKey: "_id", properties: { _id: "objectId" } };
    }
    const user = await logInNew(openEmbedded());
    expect(user.isLoggedIn).toBe(true);
    expect(() => new Task()).toThrow(sentence("Realm.Object"));
  });
});

describe("the SDK's log", () => {
  /** Makes a write that the rules deny, which the native side logs at `debug`. */
  async function refuse(user) {
    const collection = user.mongoClient("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data");
    await expect(collection.insertOne({ userId: "another-user" })).rejects.toThrow("insert not permitted");
  }

  /** Opens an app with the default log, and causes lines at `info`, `warn` and `debug`. */
  async function logEverything() {
    await refuse(await logInNew(openEmbedded({ logger: undefined, colour: "red" })));
  }

  const everything = ["debug", "info", "warn"];
  test.each([
    ["all", everything],
    ["trace", everything],
    ["debug", everything],
    ["detail", ["info", "warn"]],
    ["info", ["info", "warn"]],
    ["warn", ["warn"]],
    ["error", []],
    ["fatal", []],
    ["off", []],
  ])("at the level %s has the levels %j, by name and by number", async (level, expected) => {
    const name = level[0].toUpperCase() + level.slice(1);
    for (const form of [level, Realm.NumericLogLevel[name]]) {
      const logged = new Set();
      Realm.setLogger((lineLevel, _message) => logged.add(lineLevel));
      Realm.setLogLevel("off");
      Realm.setLogLevel(form);
      // An app with its own logger gets every line, which proves that the native side logged them.
      const all = [];
      openEmbedded({ logger: (lineLevel, text) => all.push(`${lineLevel} ${text}`) });
      await logEverything();
      await eventually(() => expect(all.join("\n")).toMatch(/^debug .*no role applies/m));
      expect([...logged].sort()).toEqual(expected);
    }
  });

  test("changes its level while apps are open, and contains each line once", async () => {
    const refusals = [];
    Realm.setLogger(({ message }) => message.includes("no role applies") && refusals.push(message));
    openEmbedded({ logger: undefined });
    const user = await logInNew(openEmbedded({ id: "other-app", logger: undefined }));
    await refuse(user);
    Realm.setLogLevel("debug");
    await refuse(user);
    await eventually(() => expect(refusals).not.toEqual([]));
    expect(refusals).toHaveLength(1);
  });

  test("calls a function without exactly two parameters with an entry of category, level and message", () => {
    const entries = [];
    Realm.setLogger((entry) => entries.push(entry));
    openEmbedded({ logger: undefined, colour: "red" });
    expect(entries).toContainEqual({
      category: "Realm.App",
      level: "warn",
      message: "unknown option 'colour' has no effect",
    });
    let count;
    Realm.setLogger((...parameters) => {
      count = parameters.length;
    });
    openEmbedded({ logger: undefined });
    expect(count).toBe(1);
  });

  test("does not affect apps with their own logger", () => {
    const own = [];
    const others = [];
    Realm.setLogger((entry) => others.push(entry));
    Realm.setLogLevel("off");
    openEmbedded({ logger: (level) => own.push(level) });
    openEmbedded({ logger: undefined });
    expect(own).toContain("info");
    expect(others).toEqual([]);
  });

  test("has a level per category, which also applies to the categories below it", () => {
    const logged = [];
    Realm.setLogger((level, _message) => logged.push(level));
    const logsOpening = () => {
      logged.length = 0;
      openEmbedded({ logger: undefined });
      return logged.length > 0;
    };
    Realm.setLogLevel("off", "Realm.Sync.Client.Network");
    expect(logsOpening()).toBe(true);
    Realm.setLogLevel("off", "Realm.App");
    expect(logsOpening()).toBe(false);
    Realm.setLogLevel("info", "Realm.Storage");
    expect(logsOpening()).toBe(false);
    Realm.setLogLevel("info", "Realm");
    expect(logsOpening()).toBe(true);
  });

  test("rejects unknown levels, unknown categories and invalid loggers", () => {
    for (const level of ["loud", "", "Info", 9, -1, 1.5, null, undefined, {}]) {
      expect(() => Realm.setLogLevel(level)).toThrow(`Unexpected log level: ${String(level)}`);
    }
    expect(() => Realm.setLogLevel("info", "Userkeep")).toThrow("Unexpected log category: 'Userkeep'");
    expect(() => Realm.setLogLevel("loud", "Realm.Sync")).toThrow(Realm.AssertionError);
    expect(() => Realm.setLogger("loud")).toThrow("Expected value to be a function, got a string");
    expect(() => Realm.setLogger()).toThrow(Realm.TypeAssertionError);
  });

  test("goes to standard error again after a shutdown", async () => {
    const logged = [];
    const written = [];
    const write = jest.spyOn(process.stderr, "write").mockImplementation((text) => written.push(text));
    try {
      Realm.setLogger(({ message }) => logged.push(message));
      openEmbedded({ logger: undefined });
      expect(logged).toContainEqual(expect.stringMatching(/^app 'test-app' runs/));
      expect(written).toEqual([]);
      logged.length = 0;
      await Realm.shutdown();
      openEmbedded({ logger: undefined });
      expect(logged).toEqual([]);
      expect(written).toContainEqual(expect.stringMatching(/^userkeep info: app 'test-app' runs/));
    } finally {
      write.mockRestore();
    }
  });

  test("does not fail if the logger throws", () => {
    const script = `const Realm = require("userkeep");
      process.on("uncaughtException", ({ message }) => console.log("thrown:", message));
      Realm.setLogger(() => { throw new Error("the logger's own"); });
      const app = new Realm.App({ id: "x", store: "memory:" });
      app.logIn(Realm.Credentials.anonymous()).then((user) => { console.log(user.state); return app.close(); });`;
    const { stdout, status } = spawnSync(process.execPath, ["-e", script], { cwd: ROOT, encoding: "utf8" });
    expect(status).toBe(0);
    expect(new Set(stdout.trim().split("\n"))).toEqual(new Set(["LoggedIn", "thrown: the logger's own"]));
  });

  test("contains no passwords", async () => {
    const lines = [];
    Realm.setLogger((_level, message) => lines.push(message));
    Realm.setLogLevel("all");
    await logEverything();
    await eventually(() => expect(lines.join("\n")).toContain("no role applies"));
    expect(lines.join("\n")).not.toContain(PASSWORD);
  });
});

describe("the deprecated global Realm", () => {
  /** Runs a program; returns its output and exit status. */
  function run(program, ...flags) {
    const { stdout, stderr, status } = spawnSync(process.execPath, [...flags, "-e", program], {
      cwd: ROOT,
      encoding: "utf8",
      timeout: 30_000,
    });
    return { stdout, stderr, status };
  }

  test("is the package, and warns once when it is read", () => {
    const { stdout, stderr, status } = run(`const imported = require("userkeep");
      console.log(Object.keys(globalThis).includes("Realm"), globalThis.Realm === imported, Realm === imported);`);
    expect({ stdout, status }).toEqual({ stdout: "false true true\n", status: 0 });
    expect(stderr.match(/\[USERKEEP_GLOBAL_REALM\] DeprecationWarning/g)).toHaveLength(1);
  });

  test("does not warn if it is not read", () => {
    expect(run(`require("userkeep"); require("userkeep").App;`)).toEqual({ stdout: "", stderr: "", status: 0 });
  });

  test("throws when it is read with THROW_ON_GLOBAL_REALM", () => {
    const { stdout } = run(`require("userkeep").flags.THROW_ON_GLOBAL_REALM = true;
      try { Realm; } catch ({ message }) { console.log(message); }`);
    expect(stdout).toMatch(/^The global 'Realm' was accessed\. Import it instead: /);
  });

  test("keeps an existing one, and can be assigned", () => {
    const { stdout, stderr } = run(`"use strict"; globalThis.Realm = "mine"; require("userkeep");
      console.log(globalThis.Realm); delete globalThis.Realm;`);
    expect({ stdout, stderr }).toEqual({ stdout: "mine\n", stderr: "" });
    const assigned = run(
      `"use strict"; require("userkeep"); globalThis.Realm = "mine"; console.log(globalThis.Realm);`,
    );
    expect(assigned).toEqual({ stdout: "mine\n", stderr: "", status: 0 });
  });

  test("is left out if the global object cannot be extended", () => {
    const { stdout } = run(`process.report; Object.preventExtensions(globalThis);
      console.log(typeof require("userkeep").App, typeof globalThis.Realm);`);
    expect(stdout).toBe("function undefined\n");
  });
});

describe("the base URL of an app", () => {
  require("userkeep/experimental/base-url");

  test("is empty for an embedded backend, else the server's URL", async () => {
    expect(openEmbedded().baseUrl).toBe("");
    const { url } = await serve();
    const metadata = { mode: Realm.MetadataMode.InMemory };
    const app = openEmbedded({ definition: undefined, store: undefined, baseUrl: `${url}/`, metadata });
    expect(app.baseUrl).toBe(url);
    await app.updateBaseUrl(`${url}/`);
    await expect(app.updateBaseUrl("http://localhost:1")).rejects.toThrow("the base URL of an open app cannot change");
    await expect(app.updateBaseUrl(null)).rejects.toThrow("the base URL of an open app cannot change");
    await expect(app.updateBaseUrl(5)).rejects.toThrow("Expected 'newUrl' to be a string, got a number");
    expect(() => {
      app.baseUrl = url;
    }).toThrow("Cannot assign the base URL, please use 'updateBaseUrl()'.");
    expect(app.baseUrl).toBe(url);
  });
});
