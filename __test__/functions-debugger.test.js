"use strict";

// Breakpoints in functions, with an inspector as `node --inspect` has it.

const { execFile } = require("node:child_process");
const path = require("node:path");
const { promisify } = require("node:util");
const { ROOT, writeDefinition } = require("./helpers.js");

/** Sets a breakpoint from another thread, and evaluates an expression where the program stops. */
const DEBUGGER = `
  const { Session } = require("node:inspector");
  const { parentPort, workerData } = require("node:worker_threads");
  const session = new Session();
  session.connectToMainThread();
  setInterval(() => {}, 1000);
  const urls = new Map();
  session.on("Debugger.scriptParsed", ({ params }) => urls.set(params.scriptId, params.url));
  session.post("Debugger.enable");
  session.on("Debugger.paused", ({ params: { callFrames: [frame] } }) => {
    const { callFrameId, location, functionName } = frame;
    session.post("Debugger.evaluateOnCallFrame", { callFrameId, expression: "points * 2" }, (_error, { result }) => {
      parentPort.postMessage({ url: urls.get(location.scriptId), line: location.lineNumber + 1, functionName, value: result.value });
      session.post("Debugger.resume");
    });
  });
  session.post("Debugger.setBreakpointByUrl", { urlRegex: workerData, lineNumber: 2 }, () => parentPort.postMessage("set"));`;

test("a breakpoint stops a function in its own file with threads: 0", async () => {
  const definition = writeDefinition({
    "functions/addPoints.js": "exports = function addPoints(points) {\n  const one = 1;\n  return points + one;\n};\n",
  });
  const program = `
    const { Worker } = require("node:worker_threads");
    const Realm = require(${JSON.stringify(ROOT)});
    const found = [];
    const inspector = new Worker(${JSON.stringify(DEBUGGER)}, { eval: true, workerData: "addPoints\\\\.js$" });
    inspector.on("message", async (message) => {
      if (message !== "set") return found.push(message);
      const app = new Realm.App({
        id: "debugged", definition: ${JSON.stringify(definition)}, store: "memory:", functions: { threads: 0 }, logger: null,
      });
      const user = await app.logIn(Realm.Credentials.anonymous());
      const result = await user.functions.addPoints(20);
      await new Promise((resolve) => setTimeout(resolve, 100));
      console.log(JSON.stringify({ result, found }));
      process.exit(0);
    });`;
  const { stdout } = await promisify(execFile)(process.execPath, ["-e", program], { timeout: 30_000 });
  const file = path.join(definition, "functions/addPoints.js");
  expect(JSON.parse(stdout)).toEqual({
    result: 21,
    found: [{ url: expect.stringContaining(file), line: 3, functionName: "addPoints", value: 40 }],
  });
});
