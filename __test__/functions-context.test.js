"use strict";

const { APP, USER, createRuntime, runFunction, withCollection } = require("./functions/run.js");

const resultOf = async (...args) => (await runFunction(...args)).value;

describe("context", () => {
  test.each([
    ["user", "context.user", USER],
    ["user.id", "context.user.id", USER.id],
    ["user.custom_data", "context.user.custom_data instanceof Object", true],
    ["app", "context.app", APP],
    ["environment", "context.environment", { tag: "testing", values: { url: "https://example.com" } }],
    ["environment.values of an unknown name", "context.environment.values.lost", undefined],
    ["values.get", "context.values.get('limits').most", 5],
    ["values.get of an unknown name", "context.values.get('toString')", undefined],
    ["services.get of an unknown name", "context.services.get('lost')", undefined],
    ["request without a request", "context.request", undefined],
    ["runningAsSystem", "context.runningAsSystem()", false],
    [
      "its members by destructuring",
      "(({ user, services }) => [user.id, typeof services.get])(context)",
      [USER.id, "function"],
    ],
  ])("has %s", async (_name, expression, expected) => {
    const options = {
      values: { limits: { most: 5 } },
      environment: { tag: "testing", values: { url: "https://example.com" } },
    };
    expect(await resultOf(`exports = () => ${expression};`, [], options)).toEqual(expected);
  });

  test("has the request that caused the call", async () => {
    const request = { remoteIPAddress: "127.0.0.1", requestHeaders: { Accept: ["*/*"] }, service: "", action: "main" };
    expect(await resultOf("exports = () => context.request", [], { request: { request } })).toEqual(request);
  });

  test("has the system user without a caller", async () => {
    const request = { user: undefined, isSystem: true };
    expect(await resultOf("exports = () => [context.user, context.runningAsSystem()]", [], { request })).toEqual([
      { type: "system" },
      true,
    ]);
  });
});

describe("context.functions.execute", () => {
  test("returns a plain result at once", async () => {
    const functions = { pair: "exports = (a, b) => ({ a, b })" };
    expect(
      await resultOf(
        "exports = () => { const { a, b } = context.functions.execute('pair', 1, 2); return a + b; }",
        [],
        {
          functions,
        },
      ),
    ).toBe(3);
  });

  test("returns the promise of an async function", async () => {
    const functions = { later: "exports = async () => 1" };
    const source =
      "exports = async () => { const p = context.functions.execute('later'); return [p instanceof Promise, await p]; }";
    expect(await resultOf(source, [], { functions })).toEqual([true, 1]);
  });

  test("passes arguments and results by reference", async () => {
    const functions = { retry: "exports = (callback, list) => { list.push(callback()); return list; }" };
    const source =
      "exports = () => { const list = []; const same = context.functions.execute('retry', () => 7, list); return [same === list, list]; }";
    expect(await resultOf(source, [], { functions })).toEqual([true, [7]]);
  });

  test("returns a collection", async () => {
    const functions = {
      connect: "exports = () => context.services.get('mongodb-atlas').db('app').collection('items')",
    };
    const source = "exports = async () => (await context.functions.execute('connect').findOne({}))._id";
    expect(await resultOf(source, [], { functions, data: { items: [{ _id: 3 }] } })).toBe(3);
  });

  test("throws the error of the function itself", async () => {
    const functions = { failing: "exports = () => { throw new TypeError('boom'); }" };
    const source =
      "exports = () => { try { context.functions.execute('failing'); } catch (e) { return e instanceof TypeError; } }";
    expect(await resultOf(source, [], { functions })).toBe(true);
  });

  test.each([
    ["an unknown function", "lost", "function not found: 'lost'"],
    ["a function without a source", "sourceless", "function 'sourceless' has no source"],
    ["a function that does not parse", "broken", "SyntaxError: Unexpected token"],
    ["a function without exports", "empty", "exports of function 'empty' is not a function"],
    ["a function whose condition does not hold", "closed", 'rule not matched for function "closed"'],
  ])("throws for %s", async (_name, name, message) => {
    const functions = {
      sourceless: { source: undefined },
      broken: "exports = )",
      empty: "",
      closed: { source: "exports = () => 1", hasCondition: true },
      open: "exports = () => 1",
    };
    const backend = { call: () => null, mayExecute: (_id, name) => name !== "closed" };
    const source = `exports = (name) => { try { context.functions.execute(name); } catch (e) { return [e.name, e instanceof Error, e.message]; } }`;
    const [errorName, isError, text] = await resultOf(source, [name], { functions, backend });
    expect([errorName, isError]).toEqual(["FunctionError", true]);
    expect(text).toContain(message);
  });

  test("evaluates the condition of a function with the call and the arguments", async () => {
    const asked = [];
    const backend = { call: () => null, mayExecute: (...args) => asked.push(args) > 0 };
    const functions = { open: { source: "exports = () => 1", hasCondition: true }, free: "exports = () => 1" };
    await runFunction(
      "exports = () => context.functions.execute('open', 'a') + context.functions.execute('free')",
      [],
      { functions, backend },
    );
    expect(asked).toEqual([[1, "open", ["a"]]]);
  });

  test("gives a system function its privilege, also after it has waited", async () => {
    const functions = {
      elevated: {
        source: withCollection("await null; await collection.findOne(); return context.runningAsSystem();"),
        isSystem: true,
      },
      plain: withCollection("await collection.findOne(); return context.runningAsSystem();"),
    };
    const source = withCollection(`const elevated = context.functions.execute("elevated");
      const plain = context.functions.execute("plain");
      await collection.findOne();
      return [await elevated, await plain, context.runningAsSystem(), context.functions.execute("inner")];`);
    functions.inner = "exports = () => context.runningAsSystem()";
    const { value, calls } = await runFunction(source, [], { functions });
    expect(value).toEqual([true, false, false, false]);
    expect(calls.map(({ isSystem }) => isSystem).sort()).toEqual([false, false, true]);
  });

  test("passes the privilege of a system function to the functions that it executes", async () => {
    const functions = {
      elevated: { source: "exports = () => context.functions.execute('inner')", isSystem: true },
      inner: "exports = () => context.runningAsSystem()",
    };
    expect(await resultOf("exports = () => context.functions.execute('elevated')", [], { functions })).toBe(true);
  });

  test.each([
    ["synchronous", "exports = (n) => context.functions.execute('deep', n + 1)"],
    ["asynchronous", "exports = async (n) => { await null; return context.functions.execute('deep', n + 1); }"],
  ])("limits the depth of %s recursion", async (_name, deep) => {
    const { call } = createRuntime({ functions: { deep } });
    await expect(call("deep", [0])).rejects.toMatchObject({ message: "exceeded max function execution depth of 100" });
  });

  test("allows a depth of 100", async () => {
    const { call } = createRuntime({
      functions: { deep: "exports = (n) => n === 100 ? n : context.functions.execute('deep', n + 1)" },
    });
    expect((await call("deep", [0])).value).toBe(100);
  });
});

describe("context.http", () => {
  const http = {
    get: async ({ url }) => ({ status: "200 OK", statusCode: 200, headers: { Url: [url] } }),
    post: async () => {
      throw Object.assign(new Error('http request: "url" argument must be a string'), {
        errorCode: "InvalidParameter",
      });
    },
  };

  test.each(["context.http", "context.services.get('web')"])("sends requests of %s", async (client) => {
    const source = `exports = async () => { const r = await ${client}.get({ url: "http://x" }); return [r.status, r.headers.Url instanceof Array, r.headers.Url]; }`;
    const services = ["mongodb-atlas", { name: "web", type: "http" }];
    expect(await resultOf(source, [], { http, services })).toEqual(["200 OK", true, ["http://x"]]);
  });

  test("rejects with a `FunctionError`", async () => {
    const source =
      "exports = async () => { try { await context.http.post({}); } catch (e) { return [String(e), e.errorCode, e instanceof Error]; } }";
    expect(await resultOf(source, [], { http })).toEqual([
      'FunctionError: http request: "url" argument must be a string',
      "InvalidParameter",
      true,
    ]);
  });

  test("finishes requests that were not awaited", async () => {
    let isDone = false;
    const slow = {
      get: async () => {
        await new Promise((resolve) => setTimeout(resolve, 10));
        isDone = true;
      },
    };
    await runFunction("exports = () => { context.http.get({}); }", [], { http: slow });
    expect(isDone).toBe(true);
  });
});

describe("globals", () => {
  test.each([
    ["process.version", "process.version", process.version],
    ["process.versions", "process.versions.v8", process.versions.v8],
    ["process.hrtime", "typeof process.hrtime()[0]", "number"],
    ["process.exit", "typeof process.exit", "undefined"],
    ["module", "typeof module", "undefined"],
    ["Buffer", "Buffer.from('a').toString('hex')", "61"],
    ["URL", "new URL('http://x/a').pathname", "/a"],
    ["URLSearchParams", "new URLSearchParams('a=1').get('a')", "1"],
    ["TextEncoder", "new TextEncoder().encode('a')[0]", 97],
    ["atob", "atob(btoa('a'))", "a"],
    ["fetch", "typeof fetch", "function"],
    ["global", "global === globalThis", true],
    ["structuredClone", "structuredClone({ a: 1 }) instanceof Object", true],
    [
      "Error for errors of modules",
      "(() => { try { require('fs').readFileSync('/lost'); } catch (e) { return e instanceof Error; } })()",
      true,
    ],
    [
      "classes of errors",
      "(() => { class A extends Error {} return [new A() instanceof A, new Error() instanceof A]; })()",
      [true, false],
    ],
  ])("have %s", async (_name, expression, expected) => {
    expect(await resultOf(`exports = () => ${expression};`)).toEqual(expected);
  });

  test.each([
    ["setTimeout", "await new Promise((resolve) => setTimeout(resolve, 1, 7))", 7],
    ["a promise of setTimeout", "await require('util').promisify(setTimeout)(1, 7)", 7],
    ["setImmediate", "await new Promise((resolve) => setImmediate(resolve, 7))", 7],
    ["clearTimeout", "(() => { clearTimeout(setTimeout(() => {}, 1)); return 7; })()", 7],
    ["queueMicrotask", "await new Promise((resolve) => queueMicrotask(() => resolve(7)))", 7],
    ["process.nextTick", "await new Promise((resolve) => process.nextTick(resolve, 7))", 7],
  ])("have %s", async (_name, expression, expected) => {
    expect(await resultOf(`exports = async () => ${expression};`)).toBe(expected);
  });
});
