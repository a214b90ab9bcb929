"use strict";

// Users who may call functions attack a server. Its process survives, its event loop is not held,
// and the calls of other users go on.

const { fork } = require("node:child_process");
const path = require("node:path");
const { setTimeout: sleep } = require("node:timers/promises");
const { writeDefinition } = require("../helpers.js");

const MB = 2 ** 20;
/** The longest time in milliseconds for which the event loop may be held. */
const LONGEST = 5;
/** Number of attempts: other processes can take the processor away from the server. */
const ATTEMPTS = 10;

/** A careless merge of documents, as many functions have one. */
const MERGE = `const merge = (to, from) => {
      for (const name in from) {
        if (typeof from[name] === "object" && from[name] !== null) {
          to[name] = merge(to[name] ?? {}, from[name]);
        } else {
          to[name] = from[name];
        }
      }
      return to;
    };`;

const SOURCES = {
  sum: "exports = (a, b) => a + b;",
  echo: "exports = (...all) => all;",
  size: "exports = (...all) => JSON.stringify(all).length;",
  names:
    "exports = (value) => ({ names: Object.keys(value), own: Object.hasOwn(value, '__proto__'), polluted: value.polluted ?? null });",
  merge: `exports = (value) => {
    ${MERGE}
    merge({}, value);
    return ({}).polluted ?? null;
  };`,
  mergeInto: `exports = (to, from) => {
    ${MERGE}
    merge(to, from);
  };`,
  pollutedId: `exports = () => {
    const id = new BSON.ObjectId();
    return [typeof id.polluted, typeof id.constructor.polluted, typeof id.toString, typeof id.constructor.createFromTime];
  };`,
  polluted: "exports = () => [({}).polluted ?? null, [].polluted ?? null, (() => {}).polluted ?? null];",
  builtIns: `exports = (text) => {
    const id = new BSON.ObjectId();
    const find = context.services.get("mongodb-atlas").db("a").collection("b").find;
    return [
      text.repeat(50), typeof id.id.polluted, typeof id.id.utf8Write, typeof find.polluted, typeof find.call,
      typeof find.constructor.polluted, typeof find.constructor.prototype.call, typeof Buffer.polluted, typeof Buffer.from,
      typeof new Uint8Array(1).polluted, typeof new Uint8Array(1).set, Buffer.from("ab").toString("hex"), String(id).length,
    ];
  };`,
  log: "exports = (text) => console.log(text);",
  large: "exports = (size) => 'x'.repeat(size);",
  many: "exports = (count) => Array.from({ length: count }, (_, n) => ({ n, text: 'some text' }));",
  deep: "exports = (depth) => { let value = {}; for (let n = 0; n < depth; n++) value = { value }; return value; };",
  cycle: "exports = () => { const value = {}; value.value = value; return value; };",
  flood: "exports = (count) => { for (let n = 0; n < count; n++) console.log('line', n, 'x'.repeat(1000)); };",
  chain: "exports = async (count) => { for (let n = 0; n < count; n++) await null; return count; };",
  find: `exports = (filter) =>
    context.services.get("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data").find(filter).toArray();`,
  insert: `exports = (document) =>
    context.services.get("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data")
      .insertOne({ ...document, userId: context.user.id });`,
  sleep: "exports = () => new Promise(() => {});",
  hidden: "exports = () => 'secret';",
};

const children = [];

afterEach(async () => {
  for (const { child, exited } of children.splice(0)) {
    child.kill("SIGKILL");
    await exited;
  }
});

/** Starts a server. `ask(name, value)` sends it a message, and returns the answer. */
async function startServer(options) {
  const child = fork(path.join(__dirname, "functions-server.js"), { stdio: ["ignore", "ignore", "inherit", "ipc"] });
  children.push({ child, exited: new Promise((resolve) => child.on("exit", resolve)) });
  const ask = (name, value) =>
    new Promise((resolve, reject) => {
      child.once("message", (answer) => {
        child.off("exit", ended);
        resolve(answer);
      });
      const ended = (code, signal) => reject(new Error(`the server ended: ${code ?? signal}`));
      child.once("exit", ended);
      child.send({ name, value });
    });
  const files = Object.entries(SOURCES).map(([name, source]) => [`functions/${name}.js`, source]);
  const manifest = [{ name: "hidden", private: true }, ...Object.keys(SOURCES).map((name) => ({ name }))];
  const unique = manifest.filter(({ name }, index) => manifest.findIndex((entry) => entry.name === name) === index);
  const definition = writeDefinition({ ...Object.fromEntries(files), "functions/config.json": unique });
  const functions = { threads: 2, timeLimit: 20_000 };
  const url = await ask("serve", { app: "test-app", definition, functions, unlimited: "127.0.0.1", ...options });
  const api = `${url}/api/client/v2.0/app/test-app`;
  const server = { ask, api };
  return { ...server, attacker: await logIn(server), other: await logIn(server) };
}

/** Logs a user in. Returns `call(name, args)`, which resolves to `{ status, text }`. */
async function logIn({ api }) {
  const answer = await fetch(`${api}/auth/providers/anon-user/login`, { method: "POST", body: "{}" });
  const { access_token: token } = await answer.json();
  const send = async (body) => {
    const response = await fetch(`${api}/functions/call`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body,
    });
    const text = await response.text();
    return { status: response.status, text };
  };
  const call = (name, ...args) => send(JSON.stringify({ name, arguments: args }));
  return { send, call };
}

/** Calls a function of another user in turn until `stop()`, which returns the outcomes. */
function callMeanwhile({ other }) {
  const outcomes = [];
  let isStopped = false;
  const calling = (async () => {
    while (!isStopped) {
      const begun = performance.now();
      const { status, text } = await other.call("sum", outcomes.length, 1);
      outcomes.push({
        isRight: status === 200 && text.includes(`"${outcomes.length + 1}"`),
        took: performance.now() - begun,
      });
      await sleep(5);
    }
  })();
  return async () => {
    isStopped = true;
    await calling;
    return outcomes;
  };
}

/** Attacks a server, until an attempt did not hold its event loop. Returns the last answers. */
async function withstand(server, attack) {
  // The first call loads code.
  await server.attacker.call("sum", 1, 2);
  await server.other.call("sum", 1, 2);
  let longest;
  let answers;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    await server.ask("reset");
    const stop = callMeanwhile(server);
    answers = await attack(server.attacker);
    const outcomes = await stop();
    ({ longest } = await server.ask("report"));
    expect(outcomes.filter(({ isRight }) => !isRight)).toEqual([]);
    expect(outcomes.length).toBeGreaterThan(0);
    if (longest < LONGEST) {
      break;
    }
  }
  expect(longest).toBeLessThan(LONGEST);
  return answers;
}

/** Returns the message and the code of a refused call. */
const refusal = ({ status, text }) => ({ status, ...JSON.parse(text) });

test("an event loop that is held is noticed", async () => {
  const server = await startServer({ functions: { threads: 0 } });
  await server.ask("reset");
  await server.attacker.call("chain", 500_000);
  expect((await server.ask("report")).longest).toBeGreaterThan(LONGEST);
});

describe("a server withstands", () => {
  test("arguments of 15 MB, and rejects larger ones", async () => {
    const server = await startServer();
    const text = "x".repeat(15 * MB);
    const answer = await withstand(server, ({ call }) => call("size", text));
    expect(answer).toEqual({ status: 200, text: `{"$numberInt":"${15 * MB + 4}"}` });
    expect((await server.attacker.call("size", "x".repeat(20 * MB))).status).toBe(413);
  });

  test("a million small values as arguments", async () => {
    const server = await startServer();
    const body = `{"name":"size","arguments":[[${'{"$numberInt":"5"},'.repeat(700_000)}1]]}`;
    const answer = await withstand(server, ({ send }) => send(body));
    expect(answer).toEqual({ status: 200, text: '{"$numberInt":"1400005"}' });
  });

  test("values that are nested too deeply", async () => {
    const server = await startServer();
    const nested = (depth) => `{"name":"echo","arguments":[${"[".repeat(depth)}${"]".repeat(depth)}]}`;
    const depths = [50, 150, 1000, 100_000, 5_000_000];
    const answers = await withstand(server, ({ send }) => Promise.all(depths.map((depth) => send(nested(depth)))));
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 400, 400, 400]);
    expect(refusal(answers[4]).error).toContain("nested");
  });

  test("a thousand calls at the same time", async () => {
    const server = await startServer();
    const answers = await withstand(server, ({ call }) =>
      Promise.all(Array.from({ length: 1000 }, (_, n) => call("sum", n, 1))),
    );
    const right = answers.filter(({ status, text }, n) => status === 200 && text === `{"$numberInt":"${n + 1}"}`);
    const refused = answers.filter(({ status }) => status === 429);
    expect(right.length + refused.length).toBe(1000);
    expect(right.length).toBeGreaterThan(200);
  });

  test("a thousand calls that wait, while others are answered", async () => {
    const server = await startServer({ functions: { threads: 2, timeLimit: 2_000 } });
    const answers = await withstand(server, ({ call }) =>
      Promise.all(Array.from({ length: 1000 }, () => call("sleep"))),
    );
    const codes = new Set(answers.map((answer) => `${answer.status} ${refusal(answer).error_code}`));
    expect([...codes].sort()).toEqual([
      expect.stringMatching(/^4\d\d ExecutionTimeLimitExceeded$/),
      expect.stringMatching(/^429 /),
    ]);
  });

  test("names that are not functions of the app", async () => {
    const server = await startServer();
    const names = ["__proto__", "constructor", "toString", "hidden", "../sum", "sum.js", "sum\0", "a".repeat(MB), ""];
    const answers = await withstand(server, ({ call }) => Promise.all(names.map((name) => call(name))));
    expect(answers.map(({ status }) => status)).toEqual(names.map(() => 404));
    const bodies = [
      "{}",
      "[]",
      "null",
      '{"name":5}',
      '{"name":["sum"]}',
      '{"name":"sum","arguments":{}}',
      '{"name":"sum","arguments":5}',
    ];
    const refused = await withstand(server, ({ send }) => Promise.all(bodies.map((body) => send(body))));
    expect(refused.map(({ status }) => status)).toEqual(bodies.map(() => 400));
  });

  test.each([
    ["large", 100 * MB, "ReadSizeLimitExceeded"],
    ["many", 2_000_000, "ReadSizeLimitExceeded"],
    ["deep", 100_000, "FunctionExecutionError"],
    ["cycle", 0, "FunctionExecutionError"],
  ])("results that are too large: %s", async (name, argument, code) => {
    const server = await startServer();
    const answer = await withstand(server, ({ call }) => call(name, argument));
    expect(refusal(answer)).toMatchObject({ status: 400, error_code: code });
  });

  test("functions that flood the console", async () => {
    const server = await startServer();
    const answers = await withstand(server, ({ call }) =>
      Promise.all(Array.from({ length: 100 }, () => call("flood", 1000))),
    );
    expect(answers.every(({ status }) => status === 200)).toBe(true);
  });
});

describe("arguments", () => {
  const POLLUTING = [
    '{"__proto__":{"polluted":1}}',
    '{"constructor":{"prototype":{"polluted":1}}}',
    '{"a":{"__proto__":{"__proto__":{"polluted":1}}}}',
    '{"a":[{"__proto__":{"polluted":1}}]}',
  ];
  const withArgument = (name, json) => `{"name":"${name}","arguments":[${json}]}`;

  test("with __proto__ are fields like others", async () => {
    const { attacker } = await startServer();
    const answer = await attacker.send(withArgument("names", POLLUTING[0]));
    expect(JSON.parse(answer.text)).toEqual({ names: ["__proto__"], own: true, polluted: null });
    const echoed = await attacker.send(withArgument("echo", POLLUTING[0]));
    expect(echoed.text).toBe('[{"__proto__":{"polluted":{"$numberInt":"1"}}}]');
  });

  test("change nothing for the next call if a function merges them carelessly", async () => {
    const { attacker, other } = await startServer();
    const outcomes = [];
    for (const json of POLLUTING) {
      outcomes.push((await attacker.send(withArgument("merge", json))).text);
      const after = await Promise.all(Array.from({ length: 20 }, () => other.call("polluted")));
      expect(new Set(after.map(({ text }) => text))).toEqual(new Set(["[null,null,null]"]));
    }
    // The function itself is affected, so the test can fail.
    expect(outcomes).toContain('{"$numberInt":"1"}');
  });

  test.each([
    '{"constructor":{"prototype":{"polluted":1}}}',
    '{"constructor":{"polluted":1,"createFromTime":1}}',
    '{"__proto__":{"polluted":1,"toString":1}}',
    '{"__proto__":{"__proto__":{"polluted":1}}}',
    '{"__proto__":{"__proto__":{"__proto__":{"polluted":1}}}}',
  ])("change no class of BSON if a function merges them carelessly: %s", async (patch) => {
    const { attacker, other } = await startServer({ functions: { threads: 1 } });
    const before = await other.call("pollutedId");
    expect(before.status).toBe(200);
    await attacker.send(`{"name":"mergeInto","arguments":[{"$oid":"6500000000000000000000aa"},${patch}]}`);
    expect(await other.call("pollutedId")).toEqual(before);
  });

  const ID = '{"$oid":"6500000000000000000000aa"}';
  const BYTES = '{"$binary":{"base64":"YWI=","subType":"00"}}';
  test.each([
    ["the bytes of an id", ID, '{"id":{"__proto__":{"utf8Write":1,"polluted":1}}}'],
    ["a method", ID, '{"toString":{"__proto__":{"call":1,"apply":1,"bind":1,"polluted":1}}}'],
    ["a class", ID, '{"constructor":{"__proto__":{"__proto__":{"call":1,"polluted":1}}}}'],
    ["the class of classes", ID, '{"toString":{"constructor":{"polluted":1,"prototype":{"call":1}}}}'],
    ["Object", ID, '{"toString":{"__proto__":{"__proto__":{"constructor":{"keys":1,"entries":1}}}}}'],
    ["bytes", BYTES, '{"buffer":{"__proto__":{"utf8Write":1,"polluted":1}}}'],
    ["typed arrays", BYTES, '{"buffer":{"__proto__":{"__proto__":{"polluted":1,"set":1}}}}'],
    ["Buffer", BYTES, '{"buffer":{"constructor":{"polluted":1,"from":1,"alloc":1}}}'],
    ["a reference", `{"$ref":"a","$id":{"x":[1]}}`, '{"oid":{"x":{"__proto__":{"push":1,"map":1}}}}'],
    ["a scope", `{"$code":"f","$scope":{"x":[1]}}`, '{"scope":{"x":{"__proto__":{"push":1,"map":1}}}}'],
  ])("change no built-in object if a function merges them carelessly: %s", async (_name, to, patch) => {
    const { attacker, other } = await startServer({ functions: { threads: 1, timeLimit: 5000 } });
    const before = await other.call("builtIns", "ä");
    expect(before.status).toBe(200);
    await attacker.send(`{"name":"mergeInto","arguments":[${to},${patch}]}`);
    expect(await other.call("builtIns", "ä")).toEqual(before);
  });

  test("cost no more than their size when a function logs them", async () => {
    const { attacker } = await startServer();
    const began = performance.now();
    expect((await attacker.call("log", `${" ".repeat(1_000_000)}x`)).status).toBe(200);
    expect(performance.now() - began).toBeLessThan(2000);
  });

  test("with keys that begin with a dollar are values or are refused", async () => {
    const { attacker } = await startServer();
    const kept = ['{"$where":"1"}', '{"$gt":""}', '{"a":{"$ne":null}}', '{"$set":{"a":"b"}}'];
    for (const json of kept) {
      expect(await attacker.send(withArgument("echo", json))).toEqual({ status: 200, text: `[${json}]` });
    }
    for (const json of ['{"$oid":"zz"}', '{"$numberLong":"x"}', '{"$date":{"$numberLong":"a"}}', '{"$binary":5}']) {
      expect([json, (await attacker.send(withArgument("echo", json))).status]).toEqual([json, 400]);
    }
  });

  test("with operators do not pass the rules of the caller", async () => {
    const { attacker, other } = await startServer();
    const stored = await other.call("insert", { secret: 1 });
    expect(stored.status).toBe(200);
    expect(JSON.parse((await other.call("find", {})).text)).toHaveLength(1);
    const filters = [
      "{}",
      '{"userId":{"$ne":null}}',
      '{"$or":[{},{"secret":{"$exists":true}}]}',
      '{"$expr":true}',
      '{"$where":"1"}',
    ];
    const outcomes = [];
    for (const filter of filters) {
      const answer = await attacker.send(withArgument("find", filter));
      outcomes.push(answer.status === 200 ? answer.text : refusal(answer).error_code);
    }
    expect(outcomes).toEqual(["[]", "[]", "[]", "InvalidParameter", "MongoDBError"]);
  });
});
