"use strict";

// Runs a web page in a real browser, which applies its CORS checks to our responses.

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { chromium } = require("playwright-core");
const { QUICKSTART, ROOT, Realm, serve, temporaryDirectory, writeDefinition } = require("./helpers.js");

const BUNDLE = path.join(ROOT, "node_modules/realm-web/dist/bundle.iife.js");
const EXECUTABLE = process.env.CHROMIUM_PATH ?? "/usr/bin/chromium";
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** The script of the page: a typical program that uses realm-web. */
async function program(baseUrl) {
  const show = (name, value) => {
    document.getElementById(name).textContent = JSON.stringify(value);
  };
  try {
    const app = new window.Realm.App({ id: "web-app", baseUrl });
    const user = await app.logIn(window.Realm.Credentials.anonymous());
    show("before", user.customData);
    const people = user.mongoClient("mongodb-atlas").db("custom-user-data-database").collection("custom-user-data");
    await people.updateOne({ userId: user.id }, { $set: { favoriteColor: "pink" } }, { upsert: true });
    await user.refreshCustomData();
    show("after", user.customData.favoriteColor);
  } catch (error) {
    show("after", String(error));
  }
}

const page = (baseUrl) => `<!doctype html><meta charset="utf-8"><title>custom data</title>
  <p id="before"></p><p id="after"></p><script src="/realm-web.js"></script>
  <script>(${program})(${JSON.stringify(baseUrl)});</script>`;

let browser;
const sites = [];

/** Starts a web server for the page. Its origin differs from the backend's. */
async function site() {
  const held = { baseUrl: "" };
  const server = http.createServer((request, response) => {
    const isBundle = request.url === "/realm-web.js";
    response.setHeader("Content-Type", isBundle ? "text/javascript" : "text/html");
    response.end(isBundle ? fs.readFileSync(BUNDLE) : page(held.baseUrl));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  sites.push(server);
  return Object.assign(held, { url: `http://127.0.0.1:${server.address().port}` });
}

beforeAll(async () => {
  if (!fs.existsSync(EXECUTABLE)) {
    throw new Error(
      `${EXECUTABLE} is missing: install Chromium (Debian: apt-get install chromium) or set CHROMIUM_PATH`,
    );
  }
  const profile = fs.mkdtempSync(path.join(require("node:os").tmpdir(), "userkeep-chromium-"));
  browser = await chromium.launchPersistentContext(profile, {
    executablePath: EXECUTABLE,
    args: FLAGS,
    ignoreDefaultArgs: false,
  });
  browser.profile = profile;
});

afterAll(async () => {
  await browser?.close();
  if (browser) {
    fs.rmSync(browser.profile, { recursive: true, force: true });
  }
});

afterEach(() => {
  for (const server of sites.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

async function open({ url }) {
  const opened = await browser.newPage();
  await opened.goto(url);
  await opened.waitForFunction(() => document.getElementById("after").textContent !== "");
  const [before, after] = await Promise.all(["#before", "#after"].map((id) => opened.textContent(id)));
  await opened.close();
  return { before, after };
}

test("a page logs in, writes custom data, refreshes it and shows it", async () => {
  const anywhere = await site();
  const { url } = await serve({ app: "web-app", definition: QUICKSTART });
  anywhere.baseUrl = url;
  expect(await open(anywhere)).toEqual({ before: "{}", after: '"pink"' });
});

test("allowed_request_origins lets only pages of these origins make requests", async () => {
  const [own, foreign] = [await site(), await site()];
  const definition = writeDefinition({
    "root_config.json": { app_id: "web-app", allowed_request_origins: [own.url] },
  });
  const baseFilePath = temporaryDirectory();
  const { url } = await serve({ app: undefined, definition, store: undefined, baseFilePath });
  own.baseUrl = url;
  foreign.baseUrl = url;
  expect(await open(own)).toEqual({ before: "{}", after: '"pink"' });
  expect(await open(foreign)).toEqual({ before: "", after: expect.stringContaining("Failed to fetch") });
  const backend = await Realm.openBackend({ definition, baseFilePath, logger: null });
  const people = backend.collection("custom-user-data-database", "custom-user-data");
  expect(await people.count({ favoriteColor: "pink" })).toBe(1);
  await backend.close();
});
