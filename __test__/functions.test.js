"use strict";

const http = require("node:http");
const os = require("node:os");
const { MODE, Realm, eventually, logInNew, openApp, serve, writeDefinition } = require("./helpers.js");

const { BSON } = Realm;

/** Writes a definition with functions: sources by name, and the entries of the manifest. */
function withFunctions(sources, manifest = [], files = {}) {
  const entries = Object.entries(sources).map(([name, source]) => [`functions/${name}.js`, source]);
  return writeDefinition({ ...Object.fromEntries(entries), "functions/config.json": manifest, ...files });
}

/** Options for tests of transactions: stores in files as well as in memory are tested. */
const OWN = {};

/** True if the store has transactions: an embedded one, or a replica set. */
async function hasTransactions() {
  return MODE !== "mongodb" || (await globalThis.databases.hasTransactions?.()) !== false;
}

/** Opens an app with functions and logs a user in. */
async function open(sources, manifest, { files, ...options } = {}) {
  const definition = withFunctions(sources, manifest, files);
  const app = await openApp({ definition, ...options });
  return { app, user: await logInNew(app) };
}

/** Opens an app with one function, and returns `call(...args)` for a new user. */
async function openOne(source, entry = {}, options = {}) {
  const { user } = await open({ main: source }, [{ name: "main", ...entry }], options);
  return (...args) => user.callFunction("main", ...args);
}

describe("a call", () => {
  test("passes arguments by position and returns the result", async () => {
    const { user } = await open({ sum: "exports = (a, b) => a + b;", count: "exports = (...all) => all.length;" });
    expect(await user.functions.sum(2, 3)).toBe(5);
    expect(await user.callFunction("sum", "a", "b")).toBe("ab");
    expect(await user.functions.count(1, undefined, null)).toBe(3);
  });

  test("returns each type as it came", async () => {
    const call = await openOne("exports = (value) => value;");
    const values = [
      true,
      null,
      "text",
      1.5,
      -0.5,
      2 ** 40,
      BSON.Long.MAX_VALUE,
      new Date(5),
      new BSON.ObjectId("6500000000000000000000aa"),
      BSON.Decimal128.fromString("1.50"),
      new BSON.Binary(Buffer.from("ab"), 5),
      new BSON.Timestamp({ t: 1, i: 2 }),
      new BSON.MinKey(),
      new BSON.MaxKey(),
      [1, ["a"], []],
      { a: { b: [{ c: 1 }] }, empty: {} },
    ];
    for (const value of values) {
      expect(await call(value)).toEqual(value);
    }
  });

  test("waits for promises, nested promises and cursors of the result", async () => {
    const { user } = await open(
      {
        nested: `exports = async () => {
          const items = context.services.get("mongodb-atlas").db("app").collection("items");
          await items.insertMany([{ _id: 1 }, { _id: 2 }]);
          return { count: items.count(), late: new Promise((resolve) => setTimeout(() => resolve("late"), 5)), none: undefined };
        };`,
        cursor: `exports = () => context.services.get("mongodb-atlas").db("app").collection("items").find({}).sort({ _id: -1 });`,
        nothing: "exports = () => {};",
      },
      [
        { name: "nested", run_as_system: true },
        { name: "cursor", run_as_system: true },
      ],
    );
    expect(await user.functions.nested()).toEqual({
      count: 2,
      late: "late",
      none: null,
    });
    expect(await user.functions.cursor()).toEqual([{ _id: 2 }, { _id: 1 }]);
    expect(await user.functions.nothing()).toBe(null);
  });

  test("finishes work that was begun and not awaited", async () => {
    const { user } = await open(
      {
        write: `exports = () => {
          const items = context.services.get("mongodb-atlas").db("app").collection("items");
          for (let index = 0; index < 50; index++) items.insertOne({ index });
        };`,
        count: `exports = () => context.services.get("mongodb-atlas").db("app").collection("items").count();`,
      },
      [
        { name: "write", run_as_system: true },
        { name: "count", run_as_system: true },
      ],
    );
    await user.functions.write();
    expect(await user.functions.count()).toBe(50);
  });
});

describe("a failure", () => {
  const failure = async (source, options) => {
    const call = await openOne(source, {}, options);
    const error = await call().catch((caught) => caught);
    return { message: error.message, code: error.errorCode, number: error.code };
  };

  test.each([
    ["an error", "exports = () => { throw new Error('boom'); };", "boom"],
    ["a text", "exports = () => { throw 'text'; };", "text"],
    ["an object", "exports = () => { throw { a: 1 }; };", '{"a":1}'],
    ["an unknown name", "exports = () => unknown;", "ReferenceError: 'unknown' is not defined"],
    ["a rejection", "exports = async () => { throw new TypeError('wrong'); };", "TypeError: wrong"],
    [
      "a member of undefined",
      "exports = () => context.none.post;",
      "TypeError: Cannot access member 'post' of undefined",
    ],
  ])("of %s has its message", async (_name, source, message) => {
    expect(await failure(source)).toEqual({ message, code: "FunctionExecutionError", number: 4313 });
  });

  test("names what is wrong with the source", async () => {
    expect(await failure("exports = 5;")).toMatchObject({ code: "FunctionInvalid" });
    expect(await failure("exports = function ( {")).toMatchObject({ code: "FunctionSyntaxError" });
    expect(await failure("exports = () => require('no-such-package');")).toMatchObject({
      message: expect.stringMatching(/Cannot find module 'no-such-package'.*main/s),
    });
  });

  test("of an unknown, private or logged-out call", async () => {
    const { app, user } = await open({ hidden: "exports = () => 1;", open: "exports = () => 2;" }, [
      { name: "hidden", private: true },
    ]);
    for (const name of ["nope", "hidden", "constructor", "__proto__"]) {
      await expect(user.callFunction(name)).rejects.toMatchObject({
        message: `function not found: '${name}'`,
        errorCode: "FunctionNotFound",
      });
    }
    await user.logOut();
    await expect(user.callFunction("open")).rejects.toMatchObject({ message: "unauthorized" });
    await app.close();
  });

  test("of a function of the manifest without a source names it", async () => {
    const { user } = await open({}, [{ name: "lost" }]);
    await expect(user.callFunction("lost")).rejects.toMatchObject({ message: expect.stringContaining("lost") });
  });
});

describe("the caller", () => {
  const SELF = `exports = async () => ({
    id: context.user.id, type: context.user.type, email: context.user.data.email, data: context.user.custom_data,
    provider: context.user.identities[0].provider_type, system: context.runningAsSystem(),
  });`;

  test("is in context.user", async () => {
    const { user } = await open({ self: SELF, system: SELF }, [{ name: "system", run_as_system: true }]);
    const self = { id: user.id, type: "normal", email: user.profile.email, data: {}, provider: "local-userpass" };
    expect(await user.functions.self()).toEqual({ ...self, system: false });
    expect(await user.functions.system()).toEqual({ ...self, system: true });
  });

  test("may be another user, by id or by script", async () => {
    const manifest = [
      { name: "script", run_as_user_id_script_source: "exports = (id) => id;" },
      { name: "system", run_as_user_id_script_source: "exports = () => ({ runAsSystem: true });" },
      { name: "unknown", run_as_user_id: "6500000000000000000000aa" },
    ];
    const { app, user } = await open(
      { script: SELF, system: "exports = () => context.runningAsSystem();", unknown: SELF },
      manifest,
    );
    const other = await logInNew(app);
    expect(await other.functions.system()).toBe(true);
    await expect(other.functions.unknown()).rejects.toMatchObject({
      message: "invalid session: error finding user for endpoint",
      errorCode: "FunctionExecutionError",
    });
    expect(await other.functions.script(user.id)).toMatchObject({ id: user.id, system: false });
    await expect(other.functions.script("6500000000000000000000aa")).rejects.toMatchObject({
      message: "invalid session: error finding user for endpoint",
    });
  });

  test("meets the condition of the function", async () => {
    const condition = { "%%user.data.email": { "%in": ["ann@example.com"] } };
    const { user } = await open({ closed: "exports = () => 1;", open: "exports = () => 2;" }, [
      { name: "closed", can_evaluate: condition },
      { name: "open", can_evaluate: { "%%user.type": "normal" } },
    ]);
    await expect(user.functions.closed()).rejects.toMatchObject({
      message: 'rule not matched for function "closed"',
      errorCode: "FunctionExecutionError",
    });
    expect(await user.functions.open()).toBe(2);
  });
});

describe("rules", () => {
  const WRITE = `exports = async (userId) => {
    const data = context.services.get("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data");
    return data.insertOne({ userId, score: 1 });
  };`;

  test("apply to a function of the user, and not to a system function", async () => {
    const { user } = await open({ user: WRITE, system: WRITE }, [{ name: "system", run_as_system: true }]);
    await expect(user.functions.user("another")).rejects.toMatchObject({
      message: expect.stringMatching(/not permitted/),
    });
    await user.functions.system(user.id);
    await user.refreshCustomData();
    expect(user.customData).toMatchObject({ score: 1 });
  });

  test("keep the backend's own databases from system functions", async () => {
    const source = `exports = () => context.services.get("mongodb-atlas").db("userkeep_test-app").collection("users").find().toArray();`;
    const call = await openOne(source, { run_as_system: true });
    await expect(call()).rejects.toMatchObject({ message: expect.stringMatching(/no rule exists/) });
  });
});

describe("values", () => {
  test("secrets and the environment reach functions and conditions", async () => {
    const files = {
      "root_config.json": { app_id: "test-app", environment: "testing" },
      "environments/testing.json": { values: { region: "north" } },
      "values/limit.json": { name: "limit", value: { most: 5 } },
      "values/key.json": { name: "key", from_secret: true, value: "apiKey" },
    };
    const source = `exports = () => ({
      limit: context.values.get("limit"), key: context.values.get("key"), none: typeof context.values.get("none"),
      tag: context.environment.tag, region: context.environment.values.region,
    });`;
    const entry = { can_evaluate: { "%%environment.values.region": "north" } };
    const call = await openOne(source, entry, { files, secrets: { apiKey: "k3y" } });
    expect(await call()).toEqual({
      limit: { most: 5 },
      key: "k3y",
      none: "undefined",
      tag: "testing",
      region: "north",
    });
  });
});

describe("the collection API", () => {
  test("has what functions have and clients do not", async () => {
    const source = `exports = async () => {
      const service = context.services.get("mongodb-atlas");
      const items = service.db("app").collection("items");
      const first = await items.insertMany([{ _id: 1, a: [1, 2] }, { _id: 2, a: 3 }, { _id: 3 }], { ordered: false });
      const page = await items.find({}, { a: 0 }).sort({ _id: 1 }).skip(1).limit(1).toArray();
      const replaced = await items.replaceOne({ _id: 3 }, { b: 1 });
      const bulk = await items.bulkWrite([
        { insertOne: { document: { _id: 4 } } },
        { updateOne: { filter: { _id: 4 }, update: { $set: { a: 9 } } } },
        { deleteOne: { filter: { _id: 1 } } },
      ]);
      return {
        first, page, replaced, bulk, distinct: (await items.distinct("a", {})).sort(),
        rest: await items.find().sort({ _id: 1 }).toArray(),
        names: await service.db("app").getCollectionNames(), databases: await service.admin().getDBNames(),
      };
    };`;
    const call = await openOne(source, { run_as_system: true });
    expect(await call()).toEqual({
      first: { insertedIds: [1, 2, 3] },
      page: [{ _id: 2 }],
      replaced: { matchedCount: 1, modifiedCount: 1 },
      bulk: null,
      distinct: [3, 9],
      rest: [
        { _id: 2, a: 3 },
        { _id: 3, b: 1 },
        { _id: 4, a: 9 },
      ],
      names: ["items"],
      databases: expect.arrayContaining(["app"]),
    });
  });
});

describe("a transaction", () => {
  const SETUP = `const service = context.services.get("mongodb-atlas");
    const accounts = service.db("app").collection("accounts");
    const session = service.startSession();`;

  test("commits all writes or none, and sees its own", async () => {
    const { user } = await open(
      {
        transfer: `exports = async (amount) => {
          ${SETUP}
          try {
            return await session.withTransaction(async () => {
              await accounts.updateOne({ _id: "a" }, { $inc: { credits: -amount } }, { session });
              await accounts.updateOne({ _id: "b" }, { $inc: { credits: amount } }, { upsert: true, session });
              const { credits } = await accounts.findOne({ _id: "a" }, {}, { session });
              if (credits < 0) throw new Error("not enough credits");
              return credits;
            });
          } finally {
            await session.abortTransaction();
            await session.endSession();
          }
        };`,
        all: `exports = async (add) => {
          ${SETUP}
          if (add) await accounts.insertOne({ _id: "a", credits: 5 });
          return accounts.find().sort({ _id: 1 }).toArray();
        };`,
      },
      ["transfer", "all"].map((name) => ({ name, run_as_system: true })),
      OWN,
    );
    await user.functions.all(true);
    if (!(await hasTransactions())) {
      await expect(user.functions.transfer(3)).rejects.toMatchObject({ message: expect.stringMatching(/replica set/) });
      return;
    }
    expect(await user.functions.transfer(3)).toBe(2);
    await expect(user.functions.transfer(3)).rejects.toMatchObject({ message: "not enough credits" });
    expect(await user.functions.all(false)).toEqual([
      { _id: "a", credits: 2 },
      { _id: "b", credits: 3 },
    ]);
  });

  test("begins with its first operation, so that a write before it is no conflict", async () => {
    if (!(await hasTransactions())) {
      return;
    }
    const source = `exports = async () => {
      ${SETUP}
      await accounts.insertOne({ _id: "a", inside: 0, outside: 0 });
      let attempts = 0;
      await session.withTransaction(async () => {
        attempts += 1;
        await accounts.updateOne({ _id: "a" }, { $inc: { outside: 1 } });
        await accounts.updateOne({ _id: "a" }, { $inc: { inside: 1 } }, { session });
      });
      return { attempts, account: await accounts.findOne() };
    };`;
    const call = await openOne(source, { run_as_system: true }, OWN);
    expect(await call()).toEqual({ attempts: 1, account: { _id: "a", inside: 1, outside: 1 } });
  });

  test("ends with an operation that fails", async () => {
    if (!(await hasTransactions())) {
      return;
    }
    const source = `exports = async (kind) => {
      ${SETUP}
      const failing = {
        operator: () => accounts.findOne({ a: { $nope: 1 } }, {}, { session }),
        stage: () => accounts.aggregate([{ $nope: {} }], { session }).toArray(),
        duplicate: () => accounts.insertOne({ _id: kind }, { session }),
      };
      session.startTransaction();
      await accounts.insertOne({ _id: kind }, { session });
      const failure = await failing[kind]().then(() => "none", (error) => typeof error.message);
      const commit = await session.commitTransaction().then(() => "committed", () => "aborted");
      return [failure, commit, await accounts.count({ _id: kind })];
    };`;
    const call = await openOne(source, { run_as_system: true }, OWN);
    for (const kind of ["operator", "stage", "duplicate"]) {
      expect([kind, await call(kind)]).toEqual([kind, ["string", "aborted", 0]]);
    }
  });

  test("waits for its turn if many are open", async () => {
    if (!(await hasTransactions())) {
      return;
    }
    const source = `exports = async (id) => {
      ${SETUP}
      await session.withTransaction(async () => {
        await accounts.insertOne({ _id: id }, { session });
        await new Promise((resolve) => setTimeout(resolve, 50));
      });
      return id;
    };`;
    const { app } = await open({ main: source }, [{ name: "main", run_as_system: true }], OWN);
    const users = await Promise.all(Array.from({ length: 6 }, () => logInNew(app)));
    const ids = Array.from({ length: 48 }, (_, id) => id);
    expect(await Promise.all(ids.map((id) => users[id % 6].functions.main(id)))).toEqual(ids);
  });

  test("is repeated after a conflict, so that no increment is lost", async () => {
    if (!(await hasTransactions())) {
      return;
    }
    const source = `exports = async (set) => {
      ${SETUP}
      if (set) return accounts.insertOne({ _id: "a", count: 0 });
      return session.withTransaction(async () => {
        const { count } = await accounts.findOne({ _id: "a" }, {}, { session });
        await accounts.updateOne({ _id: "a" }, { $set: { count: count + 1 } }, { session });
        return count + 1;
      });
    };`;
    const call = await openOne(source, { run_as_system: true }, OWN);
    await call(true);
    const counts = await Promise.all(Array.from({ length: 10 }, () => call(false)));
    expect(counts.sort((a, b) => a - b)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  });

  test("obeys the rules of the user", async () => {
    if (!(await hasTransactions())) {
      return;
    }
    const source = `exports = async (userId) => {
      const service = context.services.get("mongodb-atlas");
      const data = service.db("custom-user-data-database").collection("custom-user-data");
      const session = service.startSession();
      await session.withTransaction(() => data.insertOne({ userId }, { session }));
    };`;
    const call = await openOne(source, {}, OWN);
    await expect(call("another")).rejects.toMatchObject({ message: expect.stringMatching(/not permitted/) });
  });
});

describe("context.http and context.request", () => {
  test("send requests, and describe the request of the call", async () => {
    const server = http.createServer((request, response) => response.end(`got ${request.headers["x-name"]}`));
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    const call = await openOne(`exports = async (url) => {
      const response = await context.http.get({ url, headers: { "X-Name": ["a"] } });
      return { status: response.statusCode, text: response.body.text(), from: context.request?.remoteIPAddress, action: context.request?.action };
    };`);
    const isRemote = MODE === "remote";
    expect(await call(`http://127.0.0.1:${server.address().port}/`)).toMatchObject({
      status: 200,
      text: "got a",
      ...(isRemote && { from: "127.0.0.1", action: "main" }),
    });
    server.close();
    server.closeAllConnections();
  });
});

describe("limits", () => {
  const SPIN = "exports = () => { for (;;) {} };";

  test("end a loop, and calls on other threads go on", async () => {
    const sources = { spin: SPIN, sum: "exports = (a, b) => a + b;", sleep: "exports = () => new Promise(() => {});" };
    const { user } = await open(sources, [], { functions: { threads: 2, timeLimit: 1500 } });
    const late = { message: "execution time limit exceeded", errorCode: "ExecutionTimeLimitExceeded" };
    const ended = expect(user.functions.spin()).rejects.toMatchObject(late);
    for (let index = 0; index < 20; index++) {
      expect(await user.functions.sum(index, 1)).toBe(index + 1);
    }
    await ended;
    await expect(user.functions.sleep()).rejects.toMatchObject(late);
    expect(await user.functions.sum(1, 1)).toBe(2);
  });

  test("end a memory hog, also of buffers", async () => {
    const sources = {
      heap: "exports = () => { const all = []; for (;;) all.push({ text: 'x'.repeat(10) + all.length }); };",
      buffers: "exports = () => { const all = []; for (;;) all.push(Buffer.alloc(1e6, 1)); };",
      arrays: "exports = () => { const all = []; for (;;) all.push(new Float64Array(1e5).fill(1)); };",
      copies: "exports = () => { const all = [new Uint8Array(1e6).fill(1)]; for (;;) all.push(all[0].slice()); };",
      mapped: "exports = () => { const all = [new Float64Array(1e5)]; for (;;) all.push(all[0].map(() => 1)); };",
      constructed:
        "exports = () => { const all = [new Int8Array(1e6)]; for (;;) all.push(new all[0].constructor(1e6).fill(1)); };",
      garbage: "exports = () => { for (let index = 0; index < 500; index++) Buffer.alloc(1e6, 1); return 'fine'; };",
    };
    const { user } = await open(sources, [], { functions: { memoryLimit: 64, timeLimit: 60_000 } });
    for (const name of ["heap", "buffers", "arrays", "copies", "mapped", "constructed"]) {
      await expect(user.callFunction(name)).rejects.toMatchObject({
        message: "memory limit exceeded",
        errorCode: "FunctionExecutionError",
      });
    }
    expect(await user.functions.garbage()).toBe("fine");
  });

  test("fail a result of more than 32 MB", async () => {
    const sources = {
      text: "exports = (size) => 'x'.repeat(size);",
      values: "exports = (count) => Array.from({ length: count }, (_, n) => ({ n, text: 'some text' }));",
    };
    const { user } = await open(sources);
    const tooLarge = {
      message: "the result of the function has more than 33554432 bytes",
      errorCode: "ReadSizeLimitExceeded",
    };
    await expect(user.functions.text(100 * 2 ** 20)).rejects.toMatchObject(tooLarge);
    await expect(user.functions.values(1_000_000)).rejects.toMatchObject(tooLarge);
    expect(await user.functions.text(15 * 2 ** 20)).toHaveLength(15 * 2 ** 20);
  });

  test("do not replace the constructor of a value by another one", async () => {
    const call = await openOne(`exports = (bytes) => {
      const arrays = [new Uint8Array(2), new Float64Array(2), new ArrayBuffer(2)];
      return [
        arrays.every((array) => array.constructor === globalThis[array.constructor.name]),
        arrays.every((array) => array.slice(1) instanceof array.constructor),
        Buffer.from("ab") instanceof Uint8Array, new Uint8Array(new ArrayBuffer(4), 1).length, bytes.buffer.length,
      ];
    };`);
    expect(await call(new BSON.Binary(Buffer.from("abc")))).toEqual([true, true, true, 3, 3]);
  });

  const HOGS = {
    slice: "const bytes = new Uint8Array(10e6); for (let i = 0; i < 300; i++) all.push(bytes.slice().fill(1));",
    map: "const list = new Float64Array(1e6); for (let i = 0; i < 300; i++) all.push(list.map((n) => n + 1));",
    hex: "const bytes = Buffer.alloc(5e6, 1); for (let i = 0; i < 200; i++) all.push(bytes.toString('hex'));",
    random: "for (let i = 0; i < 200; i++) all.push(require('crypto').randomBytes(10e6));",
    encoded: "const text = 'a'.repeat(10e6); for (let i = 0; i < 200; i++) all.push(new TextEncoder().encode(text));",
    package: "all.push(require('hog')());",
    wasm: `for (let i = 0; i < 50; i++) {
      all.push(new WebAssembly.Memory({ initial: 160 }));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }`,
  };

  test.each(Object.entries(HOGS))("end a hog of memory outside the heap: %s", async (_name, body) => {
    const files = {
      "functions/node_modules/hog/index.js":
        "module.exports = () => { const all = []; for (let i = 0; i < 200; i++) all.push(new Uint8Array(10e6).fill(1)); };",
    };
    const options = { files, functions: { threads: 1, memoryLimit: 64, timeLimit: 60_000 } };
    const call = await openOne(`exports = async () => { const all = []; ${body} return all.length; };`, {}, options);
    await expect(call()).rejects.toMatchObject({ message: "memory limit exceeded" });
  });

  test("a thread with a limit has ordinary constructors", async () => {
    const call = await openOne(`exports = () => [
      new Uint8Array(2).constructor === Uint8Array, new Int16Array(2).slice().constructor === Int16Array,
      Buffer.from([1, 2]) instanceof Uint8Array, Uint8Array.from([1, 2]).join(), new Float64Array([1]).map((n) => n + 1)[0],
      Buffer.from("ab").toString("hex"), Buffer.from("ab").slice(1).toString(),
    ];`);
    expect(await call()).toEqual([true, true, true, "1,2", 2, "6162", "b"]);
  });

  test("nothing of one call is visible to the next", async () => {
    const call = await openOne(`exports = (set) => {
      if (set) { leaked = 1; globalThis.other = 2; Array.prototype.extra = 3; setInterval(() => {}, 1); }
      return [typeof leaked, typeof other, typeof [].extra];
    };`);
    await call(true);
    expect(await call(false)).toEqual(["undefined", "undefined", "undefined"]);
  });

  test.each([
    ["a match", "/s(.*)/.test('secret')", "RegExp.$1 + RegExp.lastMatch"],
    ["a class of the runtime", "FIND.constructor.prototype.extra = 1", "typeof FIND.extra"],
    ["a frozen prototype", "Object.freeze(Array.prototype)", "Object.isFrozen(Array.prototype)"],
    ["a frozen global object", "Object.preventExtensions(globalThis)", "Object.isExtensible(globalThis)"],
    ["a module of Node", "require('util').extra = 1", "typeof require('util').extra"],
    ["a class of a module", "require('url').URL.extra = 1", "typeof require('url').URL.extra"],
    ["a function of utils", "utils.crypto.hash.extra = 1", "typeof utils.crypto.hash.extra"],
    ["a function of the clock", "performance.now.extra = 1", "typeof performance.now.extra"],
    ["the pool of buffers", "Buffer.from('secret')", "Buffer.from('x').buffer.byteLength"],
  ])("%s does not reach the next call", async (_name, change, observed) => {
    const collection = "context.services.get('mongodb-atlas').db('a').collection('b')";
    const source = `exports = (set) => { const FIND = ${collection}; if (set) { try { ${change}; } catch {} } return ${observed}; };`;
    const call = await openOne(source);
    const usual = await call(false);
    await call(true);
    expect(await call(false)).toEqual(usual);
  });

  const DESCRIBE_ARRAYS = `[
    typeof Int32Array.extra, typeof Float64Array.extra, typeof new Int32Array(1).extra, Int32Array.name,
    String(Int32Array.from([1])), Object.getPrototypeOf(Float64Array) === null,
  ]`;
  test.each([
    ["a property", "Int32Array.extra = 1"],
    ["a method", "Int32Array.from = () => 'changed'"],
    ["a hidden property", "Object.defineProperty(Float64Array, 'extra', { value: 1 })"],
    ["a prototype", "Object.setPrototypeOf(Float64Array, null)"],
    ["a property of the prototype", "Int32Array.prototype.extra = 1"],
    ["the global", "Int32Array = Array"],
  ])("a constructor of buffers is as before after a call that changed %s", async (_name, change) => {
    const call = await openOne(`exports = (set) => { if (set) { ${change}; } return ${DESCRIBE_ARRAYS}; };`);
    const usual = ["undefined", "undefined", "undefined", "Int32Array", "1", false];
    expect(await call(false)).toEqual(usual);
    expect(await call(true)).not.toEqual(usual);
    expect(await call(false)).toEqual(usual);
  });

  test.each(["Buffer", "Uint8Array", "URL", "TextEncoder"])(
    "%s is as before after a call that changes it",
    async (name) => {
      const call = await openOne(`exports = (set) => {
      if (set) {
        ${name}.prototype.extra = 1;
        // A built-in class of the thread has methods that cannot be replaced.
        try { ${name}.prototype.toString = 1; } catch {}
      }
      return [typeof ${name}.prototype.extra, typeof ${name}.prototype.toString].join();
    };`);
      await call(true);
      expect(await call(false)).toBe("undefined,function");
    },
  );

  test("the environment of the process is out of reach", async () => {
    process.env.USERKEEP_TEST_SHOWN = "shown";
    process.env.USERKEEP_TEST_HIDDEN = "hidden";
    const source = "exports = () => ({ ...process.env });";
    const call = await openOne(source, {}, { functions: { env: ["USERKEEP_TEST_SHOWN"] } });
    expect(await call()).toEqual({ USERKEEP_TEST_SHOWN: "shown" });
    delete process.env.USERKEEP_TEST_SHOWN;
    delete process.env.USERKEEP_TEST_HIDDEN;
  });

  test("the calling thread runs functions with threads: 0", async () => {
    const call = await openOne("exports = (a) => a * 2;", {}, { functions: { threads: 0 } });
    expect(await call(4)).toBe(8);
  });
});

describe("the options", () => {
  test.each([
    [{ threads: 65 }, "functions.threads"],
    [{ timeLimit: 0 }, "functions.timeLimit"],
    [{ memoryLimit: 31 }, "functions.memoryLimit"],
    [{ env: "PATH" }, "functions.env"],
  ])("reject %j by its name", async (functions, name) => {
    await expect(open({}, [], { functions })).rejects.toThrow(`'${name}'`);
  });

  test("report a name that does not exist, and use defaults for undefined", async () => {
    if (MODE === "remote") {
      return;
    }
    const warnings = [];
    const logger = (level, text) => level === "warn" && warnings.push(text);
    await openApp({ functions: { threads: undefined, timeout: 1 }, logger });
    expect(warnings).toContainEqual("unknown option 'functions.timeout' has no effect");
  });

  test("of a server start one thread per core, or as many as are given", async () => {
    const files = { "functions/node_modules/of-thread/index.js": "module.exports = Math.random();" };
    const source = `exports = () => {
      const end = Date.now() + 150;
      while (Date.now() < end);
      return require("of-thread");
    };`;
    const definition = withFunctions({ main: source }, [], files);
    const parallelism = jest.spyOn(os, "availableParallelism").mockReturnValue(2);
    const countThreads = async (functions) => {
      const server = await serve({ definition, functions });
      const { url } = server;
      const app = new Realm.App({ id: "test-app", baseUrl: url, metadata: { mode: "inMemory" }, logger: null });
      const user = await logInNew(app);
      const threads = await Promise.all(Array.from({ length: 12 }, () => user.functions.main()));
      await app.close();
      await server.close();
      return new Set(threads).size;
    };
    expect(await countThreads(undefined)).toBe(2);
    expect(await countThreads({ timeLimit: 60_000 })).toBe(2);
    expect(await countThreads({ threads: 1 })).toBe(1);
    parallelism.mockRestore();
  });
});

test("the console goes to the log", async () => {
  const lines = [];
  const logger = (level, text) => lines.push(`${level} ${text}`);
  const definition = withFunctions({
    main: "exports = () => { console.log('one', { a: 1 }); console.error('two'); };",
  });
  if (MODE === "remote") {
    return;
  }
  const app = await openApp({ definition, logger });
  await (await logInNew(app)).functions.main();
  await eventually(() => {
    expect(lines).toContainEqual(expect.stringMatching(/^info one .*a.*1.* function=main$/));
    expect(lines).toContainEqual("error two function=main");
  });
});

describe("a thread that runs several calls", () => {
  const ONE_THREAD = { functions: { threads: 1 } };
  const SLOW = "exports = () => new Promise((resolve) => setTimeout(() => resolve('done'), 300));";

  test.each([
    ["a fetch that was not awaited", "fetch('http://127.0.0.1:1'); return 1;", "fetch failed"],
    ["a promise of fs that was not awaited", "require('fs').promises.readFile('/nope'); return 1;", "ENOENT"],
    [
      "a throw in a callback of fs",
      "require('fs').stat('/', () => { throw new Error('in callback'); }); return 1;",
      "in callback",
    ],
    ["a request without a listener of errors", "require('http').get('http://127.0.0.1:1'); return 1;", "ECONNREFUSED"],
    ["a getter that throws in a thrown value", "throw { get message() { throw null; }, stack: 'x' };", undefined],
  ])("keeps them after %s", async (_name, body, logged) => {
    const lines = [];
    const logger = (level, text) => lines.push(`${level} ${JSON.stringify(text)}`);
    const sources = { slow: SLOW, main: `let id; exports = () => { ${body} };`, id: "exports = () => 1;" };
    const { user } = await open(sources, [], { ...ONE_THREAD, logger });
    await user.functions.id();
    const slow = user.functions.slow();
    const result = await user.functions.main().catch((error) => error.errorCode);
    expect(result).toBe(logged === undefined ? "FunctionExecutionError" : 1);
    expect(await slow).toBe("done");
    if (logged !== undefined) {
      // Over HTTP, the app and the server have one logger.
      const found = () => [...new Set(lines.filter((line) => line.includes(logged)))];
      await eventually(() => expect(found()).toHaveLength(1));
      expect(found()[0]).toContain("main");
    }
  });

  test("logs the console lines of a call that was cancelled", async () => {
    const lines = [];
    const logger = (level, text) => lines.push(`${level} ${JSON.stringify(text)}`);
    const source = "exports = () => { console.warn('before the wait'); return new Promise(() => {}); };";
    const { user } = await open({ main: source }, [], { functions: { threads: 1, timeLimit: 1000 }, logger });
    await expect(user.functions.main()).rejects.toMatchObject({ errorCode: "ExecutionTimeLimitExceeded" });
    const found = () => new Set(lines.filter((line) => /^warn.*before the wait.*main/.test(line)));
    await eventually(() => expect(found().size).toBe(1));
  });
});

describe("calls on one thread after each other", () => {
  const open1 = (sources, options) => open(sources, [], { functions: { threads: 1 }, ...options });

  test.each([
    ["a symbol of the global object", "globalThis[Symbol.for('c')]"],
    ["a symbol of a built-in class", "Array[Symbol.for('c')]"],
    ["a symbol of a built-in prototype", "Array.prototype[Symbol.for('c')]"],
    ["a symbol of a module", "Array[require('util').inspect.custom]"],
    ["a property of `Buffer`", "Buffer.cache"],
    ["a property of the prototype of `Buffer`", "Buffer.prototype.cache"],
    ["a property of `URL`", "URL.cache"],
    ["a symbol of `URL`", "URL[Symbol.for('c')]"],
    ["a property of a class of `BSON`", "BSON.ObjectId.cache"],
    ["a replaced function", "Buffer.compare", "function"],
  ])("do not share %s", async (_name, target, type = "undefined") => {
    const { user } = await open1({
      main: `exports = (value) => { const before = typeof ${target}; ${target} = value; return before; };`,
    });
    expect(await user.functions.main("mine")).toBe(type);
    expect(await user.functions.main("mine")).toBe(type);
  });

  test("keep what a package adds to shared classes", async () => {
    const files = { "functions/node_modules/patch/index.js": "Buffer.patched = 1;" };
    const sources = { main: "exports = () => { Buffer.own = 1; require('patch'); return [Buffer.patched]; };" };
    const { user } = await open1(sources, { files });
    expect(await user.functions.main()).toEqual([1]);
    expect(await user.functions.main()).toEqual([1]);
  });

  test.each([
    ["a callback of fs", "require('fs').stat('/', () => late());"],
    ["a fetch", "fetch('http://127.0.0.1:1').catch(() => late());"],
    ["a timer of the module", "require('timers').setTimeout(() => late(), 20);"],
    ["a promise of the module of timers", "require('node:timers/promises').setTimeout(20).then(() => late());"],
    ["a callback of crypto", "require('crypto').randomBytes(8, () => late());"],
    ["a web crypto operation", "crypto.subtle.digest('SHA-1', Buffer.alloc(8)).then(() => late());"],
    ["a package", "require('later')(() => late());"],
  ])("do not see the leftover work of %s", async (_name, begin) => {
    const lines = [];
    const logger = (_level, text) => lines.push(JSON.stringify(text));
    const { user } = await open1(
      {
        first: `exports = () => {
          const late = () => { leaked = 1; console.log("late line"); Promise.reject(new Error("late error")); };
          ${begin}
          return 1;
        };`,
        second: `exports = async () => {
          await new Promise((resolve) => setTimeout(resolve, 200));
          return typeof leaked;
        };`,
      },
      {
        logger,
        files: { "functions/node_modules/later/index.js": "module.exports = (late) => setTimeout(late, 20);" },
      },
    );
    await user.functions.first();
    expect(await user.functions.second()).toBe("undefined");
    expect(lines.filter((line) => line.includes("late") && line.includes("second"))).toEqual([]);
  });
});

test("a closed app with `threads: 0` leaves no host behind", async () => {
  const { detach } = require("../lib/functions/host.js");
  expect(typeof detach).toBe("function");
  const { app, user } = await open({ main: "exports = () => 1;" }, [], { functions: { threads: 0 } });
  expect(await user.functions.main()).toBe(1);
  await app.close();
  const again = await open({ main: "exports = () => 2;" }, [], { functions: { threads: 0 } });
  expect(await again.user.functions.main()).toBe(2);
});
