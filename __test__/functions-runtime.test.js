"use strict";

const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { createRuntime, runFunction, withCollection } = require("./functions/run.js");

/** Runs a function that must fail, and returns its error. */
const failure = async (...args) => {
  try {
    await runFunction(...args);
  } catch (error) {
    return error;
  }
  throw new Error("the function did not fail");
};

const resultOf = async (...args) => (await runFunction(...args)).value;

describe("scope of a source", () => {
  test.each([
    ["a function expression", "exports = function (a, b) { return a + b; };", 5],
    ["a named function", "exports = function sum(a, b) { return a + b; };", 5],
    ["an async function", "exports = async function (a, b) { return a + b; };", 5],
    ["an arrow", "exports = (a, b) => a + b", 5],
    ["an identifier", "function sum(a, b) { return a + b; }\nexports = sum;", 5],
    ["an identifier of a constant", "const sum = async (a, b) => a + b; exports = sum", 5],
    [
      "top-level helpers",
      "const one = 1; class Sum { of(a, b) { return a + b; } }\nexports = (a, b) => new Sum().of(a, b);",
      5,
    ],
    ["rest parameters", "exports = (...all) => all.length", 2],
    ["missing arguments", "exports = (a, b, c) => c === undefined", true],
    ["a comment at the end", "exports = (a, b) => a + b // the sum", 5],
    ["`exports` declared by the source", "const exports = (a, b) => a + b;", 5],
    ["`context` declared by the source", "const context = 1; const require = 2; exports = (a, b) => a + b;", 5],
    ["an undeclared variable", "exports = (a, b) => { total = a + b; return total; }", 5],
    [
      "the idiom of unit tests",
      "exports = (a, b) => a + b;\nif (typeof module === 'object') { module.exports = exports; }",
      5,
    ],
    ["a function in sloppy mode", "exports = function () { return this === globalThis; }", true],
    ["a function in strict mode", "'use strict'; exports = function () { return this === undefined; }", true],
  ])("accepts %s", async (_name, source, expected) => {
    expect(await resultOf(source, [2, 3])).toBe(expected);
  });

  test("rejects a source that assigns no function to `exports`", async () => {
    expect(await failure("exports = 1")).toMatchObject({
      message: "exports of function 'main' is not a function",
      errorCode: "FunctionInvalid",
    });
    expect(await failure("const a = 1;")).toMatchObject({ errorCode: "FunctionInvalid" });
  });

  test("rejects a source with a syntax error, with its place", async () => {
    const error = await failure("exports = function () {\n  return 1 +;\n};");
    expect(error.errorCode).toBe("FunctionSyntaxError");
    expect(error.message).toMatch(/^SyntaxError: Unexpected token ';' in function 'main' \(.*main\.js:2:13\)$/);
  });

  test("rejects a source that ends the wrapper", async () => {
    expect(await failure("}); exports = () => 1; (function () {")).toMatchObject({ errorCode: "FunctionSyntaxError" });
  });

  test("advises `require` instead of `import`", async () => {
    expect((await failure("import axios from 'axios';\nexports = () => 1;")).message).toContain(
      "use require() instead",
    );
  });

  test("rejects the call of a function without a source", async () => {
    const { call } = createRuntime({ functions: { lost: { source: undefined, file: "/definition/lost.js" } } });
    await expect(call("lost")).rejects.toMatchObject({
      message: expect.stringContaining("function 'lost' has no source"),
    });
  });

  test("rejects the call of an unknown function", async () => {
    const { call } = createRuntime();
    await expect(call("lost")).rejects.toMatchObject({
      message: "function not found: 'lost'",
      errorCode: "FunctionNotFound",
    });
  });

  test("names the right file and line in stack traces", async () => {
    const error = await failure("const unused = 1;\nexports = () => {\n  throw new Error('boom');\n};");
    expect(error.functionStack).not.toContain(path.join("lib", "functions"));
    expect(error.functionStack).toContain(`${path.join(__dirname, "functions", "main.js")}:3:9`);
  });
});

describe("isolation", () => {
  const twice = async (first, second, args = []) => {
    const { call } = createRuntime({ functions: { first, second } });
    await call("first", args);
    return (await call("second", args)).value;
  };

  test.each([
    ["a leaked global", "exports = () => { leaked = 1; }", "exports = () => typeof leaked", "undefined"],
    [
      "a property of `globalThis`",
      "exports = () => { globalThis.leaked = 1; }",
      "exports = () => typeof leaked",
      "undefined",
    ],
    [
      "a variable of the source",
      "var count = 0; exports = () => ++count;",
      "var count; exports = () => count",
      undefined,
    ],
    ["a new method", "exports = () => { Array.prototype.last = 1; }", "exports = () => [].last", undefined],
    ["a replaced method", "exports = () => { Array.prototype.at = () => 7; }", "exports = () => [3].at(0)", 3],
    ["a replaced global", "exports = () => { JSON = null; }", "exports = () => typeof JSON.parse", "function"],
    ["a replaced static", "exports = () => { Math.max = () => 7; }", "exports = () => Math.max(1, 2)", 2],
    ["a deleted method", "exports = () => { delete String.prototype.trim; }", "exports = () => ' a '.trim()", "a"],
    [
      "a hidden method",
      "exports = () => { Object.defineProperty(Object.prototype, 'hidden', { value: 1 }); }",
      "exports = () => ({}).hidden",
      undefined,
    ],
    [
      "a changed accessor",
      "exports = () => { Object.defineProperty(RegExp.prototype, 'flags', { get: () => 'x' }); }",
      "exports = () => /a/g.flags",
      "g",
    ],
    [
      "a changed prototype",
      "exports = () => { Object.setPrototypeOf(Array.prototype, String.prototype); }",
      "exports = () => [].trim",
      undefined,
    ],
    ["a change of `console`", "exports = () => { console.log = 1; }", "exports = () => typeof console.log", "function"],
    ["a change of `process`", "exports = () => { process.leaked = 1; }", "exports = () => process.leaked", undefined],
    [
      "a changed environment",
      "exports = () => { process.env.LEAKED = 1; }",
      "exports = () => process.env.LEAKED",
      undefined,
    ],
    ["a replaced lazy global", "exports = () => { URL = 1; }", "exports = () => typeof URL", "function"],
    [
      "an evaluated declaration",
      "exports = () => { (0, eval)('let leaked = 1'); }",
      "exports = () => typeof leaked",
      "undefined",
    ],
    [
      "a change of the user",
      "exports = () => { context.user.id = 1; }",
      "exports = () => context.user.id",
      "6500000000000000000000aa",
    ],
    ["a change of the app", "exports = () => { context.app.name = 1; }", "exports = () => context.app.name", "app"],
  ])("does not show %s to the next call", async (_name, first, second, expected) => {
    expect(await twice(first, second)).toBe(expected);
  });

  test("uses a context again after a call that changed nothing", async () => {
    const source = "exports = (keep) => { keep.globals.push(globalThis); return 1; };";
    const { call } = createRuntime({ functions: { main: source } });
    class Keep {
      globals = [];
    }
    const keep = new Keep();
    await call("main", [keep]);
    await call("main", [keep]);
    expect(keep.globals[0]).toBe(keep.globals[1]);
  });

  test("stops the timers of a finished call", async () => {
    class Fired {
      count = 0;
    }
    const fired = new Fired();
    await runFunction(
      "exports = (fired) => { setInterval(() => fired.count++, 1); setTimeout(() => fired.count++, 1); };",
      [fired],
    );
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(fired.count).toBe(0);
  });

  test.each([
    ["the module", "require('timers').setInterval(() => fired.count++, 1)"],
    ["promises", "require('timers/promises').setTimeout(1).then(() => fired.count++)"],
    ["a timer that starts after the call", "require('fs').stat('/', () => setInterval(() => fired.count++, 1))"],
  ])("stops timers of %s", async (_name, statement) => {
    const fired = { count: 0 };
    class Keep {
      fired = fired;
    }
    await runFunction(`exports = ({ fired }) => { ${statement}; };`, [new Keep()]);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(fired.count).toBe(0);
  });

  test("stops a timer that fired before and is refreshed after the call", async () => {
    class Keep {
      count = 0;
    }
    const keep = new Keep();
    await runFunction(
      `exports = async (keep) => {
        await new Promise((resolve) => { keep.timer = setTimeout(() => { keep.count++; resolve(); }, 1); });
      };`,
      [keep],
    );
    keep.timer.refresh();
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(keep.count).toBe(1);
  });

  test.each([
    ["fetch", "typeof fetch", false],
    ["fs", "typeof require('fs')", false],
    ["http", "typeof require('node:http')", false],
    ["a package", "typeof require('bson')", false],
    ["util", "require('util').inspect(1)", true],
    ["hashes", "require('crypto').createHash('md5').update('a').digest('hex')", true],
    ["random bytes", "require('crypto').randomBytes(2).length", true],
    ["buffers", "Buffer.from('a').length", true],
  ])("a context is used again only if nothing of the call can be left: %s", async (_name, expression, isKept) => {
    class Keep {
      globals = [];
    }
    const keep = new Keep();
    const { call } = createRuntime({
      functions: { main: `exports = (keep) => { keep.globals.push(globalThis); return ${expression}; };` },
    });
    await call("main", [keep]);
    await call("main", [keep]);
    expect(keep.globals[0] === keep.globals[1]).toBe(isKept);
  });

  test("the module `timers/promises` waits, repeats and can be aborted", async () => {
    const source = `exports = async () => {
      const { setTimeout: wait, setInterval: every, setImmediate: soon, scheduler } = require("timers/promises");
      const controller = new AbortController();
      const aborted = wait(1000, 1, { signal: controller.signal }).catch((error) => error.name);
      controller.abort();
      let rounds = 0;
      for await (const value of every(1, "x")) { if (++rounds === 2) { break; } }
      await scheduler.wait(1);
      return [await wait(1, "late"), await soon("soon"), await aborted, rounds, wait(0) instanceof Promise];
    };`;
    expect(await resultOf(source)).toEqual(["late", "soon", "AbortError", 2, true]);
  });

  test("does not change the prototypes of the application", async () => {
    await runFunction(
      "exports = (object) => { object.constructor.prototype.polluted = 1; Object.prototype.polluted = 1; }",
      [{ a: 1 }],
    );
    expect({}.polluted).toBeUndefined();
  });

  test("rejects operations that begin after the call has ended", async () => {
    class Kept {}
    const kept = new Kept();
    await runFunction(withCollection("args[0].collection = collection;"), [kept]);
    expect(() => kept.collection.findOne()).toThrow("the function call has ended");
  });
});

describe("concurrent calls", () => {
  test("have globals and console lines of their own", async () => {
    const source = withCollection(`shared = args[0];
      for (let i = 0; i < 3; i++) { await collection.findOne(); console.log(shared); }
      return shared;`);
    const { call } = createRuntime({ functions: { main: source } });
    const results = await Promise.all([1, 2, 3, 4].map((number) => call("main", [number])));
    for (const [index, { value, messages }] of results.entries()) {
      expect(value).toBe(index + 1);
      expect(messages.map(({ text }) => text)).toEqual(Array(3).fill(String(value)));
    }
  });

  test("use as many contexts as there are calls, and keep a limited number", async () => {
    class Keep {
      globals = [];
    }
    const source = withCollection("args[0].globals.push(globalThis); await collection.findOne();");
    const { call } = createRuntime({ functions: { main: source }, limits: { contexts: 2 } });
    const runAll = async () => {
      const keep = new Keep();
      await Promise.all([1, 2, 3].map(() => call("main", [keep])));
      return new Set(keep.globals);
    };
    const first = await runAll();
    const second = await runAll();
    expect([first.size, [...second].filter((global) => first.has(global)).length]).toEqual([3, 2]);
  });
});

describe("values", () => {
  test("gives arguments of the function's own realm", async () => {
    const source = `exports = (list, date, object) =>
      [list instanceof Array, date instanceof Date, object instanceof Object, object.constructor === Object, object.inner[0] instanceof Date];`;
    const date = new Date(0);
    expect(await resultOf(source, [[1], date, { inner: [date] }])).toEqual([true, true, true, true, true]);
  });

  test("keeps `__proto__` as a field", async () => {
    const document = JSON.parse('{ "__proto__": { "a": 1 } }');
    expect(await resultOf("exports = (value) => [Object.keys(value), value.a]", [document])).toEqual([
      ["__proto__"],
      undefined,
    ]);
  });

  test.each([
    ["nothing", "exports = () => {}", undefined],
    ["null", "exports = () => null", null],
    ["a promise in a field", "exports = () => ({ a: Promise.resolve(1), b: 2 })", { a: 1, b: 2 }],
    [
      "promises in an array",
      "exports = async () => [1, 2].map(async (n) => ({ n: Promise.resolve(n) }))",
      [{ n: 1 }, { n: 2 }],
    ],
    ["a cursor", withCollection("return collection.find();"), [{ _id: 1 }, { _id: 2 }]],
    ["a cursor in a field", withCollection("return { items: collection.find().limit(1) };"), { items: [{ _id: 1 }] }],
  ])("returns %s", async (_name, source, expected) => {
    expect(await resultOf(source, [], { data: { items: [{ _id: 1 }, { _id: 2 }] } })).toEqual(expected);
  });

  test("keeps undefined fields of a result", async () => {
    expect(Object.keys(await resultOf("exports = () => ({ a: undefined })"))).toEqual(["a"]);
  });

  test("returns a count that was not awaited as a 64-bit integer", async () => {
    const value = await resultOf(withCollection("return { count: collection.count() };"), [], {
      data: { items: [{ _id: 1 }] },
    });
    expect(value.count).toMatchObject({ _bsontype: "Long", low: 1 });
  });

  test("fails with the rejection of a promise in the result", async () => {
    expect((await failure("exports = () => ({ a: Promise.reject(new Error('boom')) })")).message).toBe("boom");
  });

  test("warns once of a text in a field `error`", async () => {
    const { call, records } = createRuntime({ functions: { main: "exports = () => ({ error: 'x' })" } });
    await call("main");
    await call("main");
    expect(records).toEqual([expect.objectContaining({ level: "warn", function: "main" })]);
  });
});

test.each([
  ["an error", "new Error('x')", "function returned an error"],
  ["a set", "new Set([1])", "function returned an object without fields"],
])("warns once of %s as a result", async (_name, value, message) => {
  const { call, records } = createRuntime({ functions: { main: `exports = () => ${value}` } });
  await call("main");
  await call("main");
  expect(records).toEqual([{ level: "warn", function: "main", message: expect.stringContaining(message) }]);
});

describe("errors", () => {
  test.each([
    ["an error", "throw new Error('boom')", "boom"],
    ["a text", "throw 'boom'", "boom"],
    ["an object", "throw { reason: 'boom', count: 1 }", '{"reason":"boom","count":1}'],
    ["undefined", "throw undefined", "undefined"],
    ["an error of a class", "throw new RangeError('boom')", "RangeError: boom"],
    ["an error with a name", "const e = new Error('boom'); e.name = 'Custom'; throw e", "Custom: boom"],
    ["a missing variable", "unknown.call()", "ReferenceError: 'unknown' is not defined"],
    ["a member of undefined", "({}).a.post()", "TypeError: Cannot access member 'post' of undefined"],
    ["a member of null", "(null).post", "TypeError: Cannot access member 'post' of null"],
  ])("reports %s to the caller", async (_name, statement, message) => {
    const expected = { message, errorCode: "FunctionExecutionError" };
    expect(await failure(`exports = function () { ${statement}; };`)).toMatchObject(expected);
    expect(await failure(`exports = async function () { ${statement}; };`)).toMatchObject(expected);
  });

  test("leaves V8's texts inside the function", async () => {
    const source = "exports = () => { try { unknown(); } catch (error) { return error.message; } }";
    expect(await resultOf(source)).toBe("unknown is not defined");
  });

  test("gives errors of the backend to the function as `FunctionError`", async () => {
    const source = withCollection(`try { await collection.insertOne({ _id: 1 }); } catch (error) {
      return [error instanceof Error, error.name, String(error), error.code, error.errorCode];
    }`);
    const text = "Duplicate key error: _id 1";
    expect(await resultOf(source, [], { data: { items: [{ _id: 1 }] } })).toEqual([
      true,
      "FunctionError",
      `FunctionError: ${text}`,
      11000,
      "MongoDBError",
    ]);
  });

  test("reports an error of the backend with its own code", async () => {
    const data = { items: [{ _id: 1 }] };
    expect(await failure(withCollection("await collection.insertOne({ _id: 1 });"), [], { data })).toMatchObject({
      message: "Duplicate key error: _id 1",
      errorCode: "MongoDBError",
      code: 11000,
    });
  });

  test("keeps the console lines of a call that failed", async () => {
    const error = await failure("exports = () => { console.log('before'); throw new Error('boom'); }");
    expect(error.messages).toEqual([{ level: "info", text: "before" }]);
  });
});

describe("hostile thrown values", () => {
  const hostile = [
    ["a message whose getter throws", "throw { get message() { throw null; }, stack: 'x' }"],
    ["an error whose message throws", "throw Object.defineProperty(new Error('x'), 'message', { get() { throw 1; } })"],
    ["a name whose toString throws", "throw Object.assign(new Error('x'), { name: { toString() { throw null; } } })"],
    ["a stack whose getter throws", "throw Object.defineProperty(new Error('x'), 'stack', { get() { throw 1; } })"],
    ["a prepareStackTrace that throws", "Error.prepareStackTrace = () => { throw 1; }; throw new Error('x')"],
    [
      "an object that cannot be shown",
      "throw { toJSON() { throw 1; }, [Symbol.for('nodejs.util.inspect.custom')]() { throw 1; } }",
    ],
    ["a proxy", "throw new Proxy({}, { getPrototypeOf() { throw 1; }, get() { throw 1; }, ownKeys() { throw 1; } })"],
    ["a code that throws", "throw Object.defineProperty(new Error('x'), 'errorCode', { get() { throw 1; } })"],
  ];

  test.each(hostile)("%s fails the call", async (_name, statement) => {
    const error = await failure(`exports = () => { ${statement}; };`);
    expect(error).toMatchObject({ name: "FunctionFailure", errorCode: "FunctionExecutionError" });
    expect(typeof error.message).toBe("string");
  });

  test.each(hostile)("%s of a promise that nothing awaits is reported", async (_name, statement) => {
    const { messages } = await runFunction(
      withCollection(`collection.findOne().then(() => { ${statement}; }); return 1;`),
    );
    expect(messages).toEqual([{ level: "error", text: expect.stringContaining("unhandled error: ") }]);
  });
});

describe("draining", () => {
  test("finishes operations that were not awaited", async () => {
    const { backend } = await runFunction(
      withCollection("for (let i = 0; i < 900; i++) { collection.insertOne({ _id: i }); }"),
    );
    expect(backend.read("items")).toHaveLength(900);
  });

  test("finishes a chain of operations that was not awaited", async () => {
    const chain =
      "(async () => { for (let i = 0; i < 20; i++) { await null; await collection.insertOne({ _id: i }); } })(); return 1;";
    const { backend, value } = await runFunction(withCollection(chain));
    expect([value, backend.read("items").length]).toEqual([1, 20]);
  });

  test("finishes an operation that begins after the function has returned", async () => {
    const chain =
      "(async () => { for (let i = 0; i < 100; i++) { await null; } collection.insertOne({ _id: 1 }); })();";
    const source = withCollection(chain).replace("async function", "function");
    expect((await runFunction(source)).backend.read("items")).toHaveLength(1);
  });

  test("finishes the operations of a function that was executed and not awaited", async () => {
    const functions = {
      other: withCollection(
        "await new Promise((resolve) => setTimeout(resolve, 5)); await collection.insertOne({ _id: 1 });",
      ),
    };
    const { backend } = await runFunction("exports = () => { context.functions.execute('other'); }", [], { functions });
    expect(backend.read("items")).toHaveLength(1);
  });

  test("finishes operations before it reports an error", async () => {
    const { call, backend } = createRuntime({
      functions: { main: withCollection("collection.insertOne({ _id: 1 }); throw new Error('boom');") },
    });
    await expect(call("main")).rejects.toThrow("boom");
    expect(backend.read("items")).toHaveLength(1);
  });

  const rejections = { level: "error", text: "unhandled error: Duplicate key error: _id 1" };

  test.each([
    ["an operation", withCollection("collection.insertOne({ _id: 1 });")],
    ["a chain", withCollection("(async () => { await collection.insertOne({ _id: 1 }); })();")],
    ["an executed function", "exports = () => { context.functions.execute('other'); }"],
  ])("logs the rejection of %s that was not awaited", async (_name, source) => {
    const functions = { other: withCollection("await collection.insertOne({ _id: 1 });") };
    const { messages, value } = await runFunction(source, [], { functions, data: { items: [{ _id: 1 }] } });
    expect(messages).toEqual([rejections]);
    expect(value).toBeUndefined();
  });

  test("logs the rejection of an executed function that comes after the result", async () => {
    const functions = {
      other: "exports = async () => { await new Promise((done) => setTimeout(done, 5)); throw new Error('late'); }",
    };
    const source = "exports = () => { context.functions.execute('other'); return 1; }";
    const { messages, value } = await runFunction(source, [], { functions });
    expect([value, messages]).toEqual([1, [{ level: "error", text: "unhandled error: late" }]]);
  });

  test("logs no rejection that was handled later", async () => {
    const source = withCollection(`const failing = collection.insertOne({ _id: 1 });
      await collection.count(); await collection.count(); await collection.count();
      try { await failing; } catch (error) { return error.message; }`);
    const { messages, value } = await runFunction(source, [], { data: { items: [{ _id: 1 }] } });
    expect([value, messages]).toEqual(["Duplicate key error: _id 1", []]);
  });

  test("logs the error of a timer's callback", async () => {
    const source = `exports = async () => {
      setTimeout(() => { throw new Error("late"); }, 1);
      await new Promise((resolve) => setTimeout(resolve, 10));
    };`;
    expect((await runFunction(source)).messages).toEqual([{ level: "error", text: "unhandled error: late" }]);
  });

  test("does not wait for timers alone", async () => {
    const start = Date.now();
    await runFunction("exports = () => { setTimeout(() => {}, 10_000); }");
    expect(Date.now() - start).toBeLessThan(5000);
  });

  test("limits the number of open operations", async () => {
    const source = withCollection("for (let i = 0; i < 1001; i++) { collection.findOne(); }");
    expect(await failure(source)).toMatchObject({
      message: "exceeded max async work queue size of 1000",
      errorCode: "FunctionExecutionError",
    });
  });

  test("runs a pipeline that writes although its cursor is not read", async () => {
    const source = withCollection("collection.aggregate([{ $match: { a: 1 } }, { $merge: { into: 'copies' } }]);");
    const { backend } = await runFunction(source, [], { data: { items: [{ _id: 1, a: 1 }, { _id: 2 }] } });
    expect(backend.read("copies")).toEqual([{ _id: 1, a: 1 }]);
  });
});

describe("console", () => {
  test("renders values on one line", async () => {
    const source = `exports = () => {
      console.log("text", 1, { a: [1, { b: "c" }] }, null, undefined);
      console.warn("%s and %d", "one", 2);
      console.error("two\\n  lines");
    };`;
    expect((await runFunction(source)).messages).toEqual([
      { level: "info", text: "text 1 { a: [ 1, { b: 'c' } ] } null undefined" },
      { level: "warn", text: "one and 2" },
      { level: "error", text: "two lines" },
    ]);
  });

  const thirty = "exports = () => { for (let i = 0; i < 30; i++) { console.log(i); } }";

  test("keeps the last 25 lines of a function", async () => {
    const { messages, dropped } = await runFunction(thirty);
    expect([messages.length, messages[0].text, messages[24].text, dropped]).toEqual([25, "5", "29", 5]);
  });

  test("keeps the first 25 lines of a trigger", async () => {
    const { messages, dropped } = await runFunction(thirty, [], { request: { isTrigger: true } });
    expect([messages.length, messages[0].text, messages[24].text, dropped]).toEqual([25, "0", "24", 5]);
  });

  test("keeps 512 bytes of a line", async () => {
    const { messages } = await runFunction("exports = () => { console.log('é'.repeat(400)); }");
    expect(messages[0].text).toBe("é".repeat(256));
  });
});

describe("modules", () => {
  let directory;
  beforeAll(() => {
    directory = fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-functions-"));
    const add = (name, text) => {
      const file = path.join(directory, "node_modules", name);
      fs.mkdirSync(path.dirname(file), { recursive: true });
      fs.writeFileSync(file, text);
    };
    add("greeting/index.js", "module.exports = (name) => 'hello ' + name;");
    add("greeting/loud.js", "module.exports = (name) => 'HELLO ' + name;");
    add("broken/index.js", "require('not-installed');");
  });
  afterAll(() => fs.rmSync(directory, { recursive: true }));

  test.each([
    ["a built-in module", "require('crypto').createHash('md5').update('a').digest('hex').length", 32],
    ["a built-in module with a prefix", "require('node:path').join('a', 'b')", path.join("a", "b")],
    ["a package of the definition", "require('greeting')('Ada')", "hello Ada"],
    ["a file of a package", "require('greeting/loud')('Ada')", "HELLO Ada"],
    ["a package of the application", "typeof require('bson').serialize", "function"],
    ["`process` without `exit`", "typeof require('process').exit", "undefined"],
  ])("loads %s", async (_name, expression, expected) => {
    expect(await resultOf(`exports = () => ${expression};`, [], { directory })).toBe(expected);
    expect(await resultOf(`const value = ${expression}; exports = () => value;`, [], { directory })).toBe(expected);
  });

  test.each([
    "child_process",
    "cluster",
    "domain",
    "readline",
    "v8",
    "vm",
    "worker_threads",
    "inspector",
    "repl",
    "module",
  ])("refuses the module %s", async (name) => {
    for (const spelling of [name, `node:${name}`]) {
      const source = `exports = () => { try { require("${spelling}"); } catch (e) { return [e.message, e.code, e instanceof Error]; } }`;
      expect(await resultOf(source)).toEqual([`Cannot find module '${spelling}'`, "MODULE_NOT_FOUND", true]);
    }
  });

  test("names a missing module and the function", async () => {
    expect((await failure("const lost = require('not-installed'); exports = () => 1;")).message).toBe(
      "Cannot find module 'not-installed', required by function 'main'",
    );
    expect((await failure("exports = () => require('./other');")).message).toContain("context.functions.execute");
  });

  test("reports the error of a module that fails to load", async () => {
    expect((await failure("exports = () => require('broken');", [], { directory })).message).toContain("not-installed");
  });
});

describe("check", () => {
  const check = (functions) => createRuntime({ functions }).runtime.check();

  test("finds nothing in correct sources", () => {
    const source =
      "// require('not-installed')\nconst os = require('os');\nexports = () => context.functions.execute('other');";
    expect(check({ main: source, other: "exports = () => 'execute(\"lost\")';" })).toEqual([]);
  });

  test.each([
    ["a syntax error", "exports = () => {\n  return 1 +;\n};", 2, 13, "SyntaxError: Unexpected token ';'"],
    [
      "a missing module",
      "exports = () => {\n  require('not-installed');\n};",
      2,
      3,
      "Cannot find module 'not-installed'",
    ],
    ["a refused module", "const vm = require('vm');", 1, 12, "Cannot find module 'vm'"],
    [
      "an unknown function",
      "exports = () =>\n  context.functions.execute('lost', 1);",
      2,
      11,
      "function not found: 'lost'",
    ],
    ["a missing source", undefined, 1, 1, "function 'main' has no source"],
  ])("finds %s", (_name, source, line, column, message) => {
    expect(check({ main: { source } })).toEqual([
      {
        function: "main",
        file: path.join(__dirname, "functions", "main.js"),
        line,
        column,
        message: expect.stringContaining(message),
      },
    ]);
  });
});

describe("rejections that nothing handles", () => {
  /** Runs a script in a process of its own: jest replaces `process`. */
  const output = (script) => {
    const runner = JSON.stringify(path.join(__dirname, "functions", "run.js"));
    const text = `const { createRuntime, runFunction } = require(${runner}); (async () => { ${script} })();`;
    return spawnSync(process.execPath, ["-e", text], { encoding: "utf8" });
  };

  const failing = 'exports = () => { (async () => { throw new Error("lost"); })(); return 1; }';

  test("do not end the process, and are logged", () => {
    const { stdout, status } = output(`const { records } = await runFunction(${JSON.stringify(failing)});
      setTimeout(() => console.log(JSON.stringify(records)), 10);`);
    expect(JSON.parse(stdout)).toEqual([
      { level: "warn", message: "unhandled error after a function call", function: "main", error: "lost" },
    ]);
    expect(status).toBe(0);
  });

  test("do not reach the listeners of the application, whose own rejections do", () => {
    const { stdout } = output(`process.on("unhandledRejection", (error) => console.log(error.message));
      await runFunction(${JSON.stringify(failing)});
      Promise.reject(new Error("own"));`);
    expect(stdout).toBe("own\n");
  });

  test("end the process if they are the application's", () => {
    const { status, stderr } = output(`createRuntime(); Promise.reject(new Error("own"));`);
    expect(status).toBe(1);
    expect(stderr).toContain("Error: own");
  });
});
