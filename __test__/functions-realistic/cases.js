"use strict";

const crypto = require("node:crypto");

// Each case has the data before a call, the call, and what follows. A runner provides
// `seed(data)`, `call(name, args, request)` and `read(collection)`, so that the same cases run
// through any backend. `data` and `after` are documents of the database `app` by collection.

const ADA = { id: "ada", type: "normal", data: { email: "ada@example.com" }, custom_data: { role: "agent" } };
const BOB = { id: "bob", type: "normal", data: { email: "bob@example.com" }, custom_data: {} };
const SYSTEM = { user: undefined, isSystem: true };

const WEBHOOK_SECRET = "shared-secret";

/** The values of the app. A runner with a mail server replaces `mailUrl`. */
const VALUES = { mailKey: "k1", mailUrl: "http://mail.example.com", webhookSecret: WEBHOOK_SECRET, uploadLimit: 10 };
const ENVIRONMENT = { tag: "testing", values: { apiUrl: "https://api.example.com" } };

const PAYMENT = JSON.stringify({ id: "p1", order: "o1", cents: 250 });
const signature = crypto.createHmac("sha256", WEBHOOK_SECRET).update(PAYMENT).digest("hex");

const day = (text) => new Date(`2026-${text}T00:00:00Z`);

const CASES = [
  {
    title: "shares a list with a known user",
    name: "shareList",
    data: { lists: [{ _id: "l1", owner: "ada" }], profiles: [{ _id: "bob", email: "bob@example.com" }] },
    arguments: ["l1", "Bob@Example.com"],
    result: { shared: true, reader: "bob" },
    after: { lists: [{ _id: "l1", owner: "ada", readers: ["bob"] }] },
  },
  {
    title: "does not share the list of another user",
    name: "shareList",
    data: { lists: [{ _id: "l1", owner: "bob" }] },
    arguments: ["l1", "bob@example.com"],
    failure: "only the owner can share a list",
  },
  {
    title: "sends an invitation by e-mail",
    name: "inviteByEmail",
    data: { invitations: [] },
    arguments: ["bob@example.com"],
    result: { status: "sent" },
    requests: [
      {
        url: "http://mail.example.com/send",
        headers: { Authorization: ["Bearer k1"] },
        body: { to: "bob@example.com", subject: "ada@example.com invites you" },
        encodeBodyAsJSON: true,
      },
    ],
    after: { invitations: [{ _id: expect.anything(), email: "bob@example.com", from: "ada", accepted: false }] },
  },
  {
    title: "records a signed payment",
    name: "paymentWebhook",
    request: SYSTEM,
    data: { payments: [] },
    arguments: [{ body: PAYMENT, headers: { "X-Signature": [signature] } }],
    result: { statusCode: 200 },
    after: { payments: [{ _id: "p1", order: "o1", cents: 250, receivedBy: "system" }] },
  },
  {
    title: "ignores a repeated payment",
    name: "paymentWebhook",
    request: SYSTEM,
    data: { payments: [{ _id: "p1" }] },
    arguments: [{ body: PAYMENT, headers: { "X-Signature": [signature] } }],
    result: { statusCode: 200, repeated: true },
    after: { payments: [{ _id: "p1" }] },
  },
  {
    title: "refuses a payment with a wrong signature",
    name: "paymentWebhook",
    request: SYSTEM,
    data: { payments: [] },
    arguments: [{ body: PAYMENT, headers: { "X-Signature": ["00"] } }],
    result: { statusCode: 401 },
    after: { payments: [] },
  },
  {
    title: "transfers credits in a transaction",
    name: "transferCredits",
    data: {
      accounts: [
        { _id: "a", credits: 5 },
        { _id: "b", credits: 0 },
      ],
    },
    arguments: ["a", "b", 3],
    result: { ok: true },
    after: {
      accounts: [
        { _id: "a", credits: 2 },
        { _id: "b", credits: 3 },
      ],
    },
  },
  {
    title: "does not transfer more credits than there are",
    name: "transferCredits",
    data: {
      accounts: [
        { _id: "a", credits: 5 },
        { _id: "b", credits: 0 },
      ],
    },
    arguments: ["a", "b", 6],
    result: { ok: false, reason: "not enough credits" },
    after: {
      accounts: [
        { _id: "a", credits: 5 },
        { _id: "b", credits: 0 },
      ],
    },
  },
  {
    title: "returns a page of orders",
    name: "listOrders",
    data: {
      orders: [1, 2, 3]
        .map((n) => ({ _id: n, customer: "ada", total: n }))
        .concat({ _id: 4, customer: "bob", total: 9 }),
    },
    arguments: [{ page: 2 }],
    result: { page: 2, pages: 2, items: [{ _id: 1, total: 1 }] },
  },
  {
    title: "imports rows of CSV",
    name: "importCsv",
    data: { contacts: [] },
    arguments: ["_id,email,age\n1,a@x.com,30\n2,broken,4\r\n3,c@x.com,7\n"],
    result: { imported: 2, skipped: 1 },
    messages: ["imported 2"],
    after: {
      contacts: [
        { _id: "1", email: "a@x.com", age: 30 },
        { _id: "3", email: "c@x.com", age: 7 },
      ],
    },
  },
  {
    title: "removes old sessions at night",
    name: "nightlyCleanUp",
    request: { ...SYSTEM, isTrigger: true },
    data: {
      sessions: [
        { _id: 1, lastSeen: day("01-01") },
        { _id: 2, lastSeen: day("02-20") },
      ],
      reports: [],
    },
    arguments: [],
    result: undefined,
    messages: ["removed 1 sessions"],
    after: {
      sessions: [{ _id: 2, lastSeen: day("02-20") }],
      reports: [{ _id: "cleanUp", deletedCount: 1, by: "system" }],
    },
  },
  {
    title: "counts from 1",
    name: "nextNumber",
    data: { counters: [] },
    arguments: ["invoice"],
    result: 1,
    after: { counters: [{ _id: "invoice", value: 1 }] },
  },
  {
    title: "counts on",
    name: "nextNumber",
    data: { counters: [{ _id: "invoice", value: 41 }] },
    arguments: ["invoice"],
    result: 42,
    after: { counters: [{ _id: "invoice", value: 42 }] },
  },
  {
    title: "adds up sales by region",
    name: "salesByRegion",
    data: {
      sales: [
        { _id: 1, year: 2026, region: "north", cents: 5 },
        { _id: 2, year: 2026, region: "south", cents: 9 },
        { _id: 3, year: 2026, region: "north", cents: 6 },
        { _id: 4, year: 2025, region: "north", cents: 90 },
      ],
    },
    arguments: [2026],
    result: [
      { _id: "north", cents: 11, count: 2 },
      { _id: "south", cents: 9, count: 1 },
    ],
  },
  {
    title: "returns the cursor of a search as documents",
    name: "searchProducts",
    data: {
      products: [
        { _id: 1, name: "pen", price: 3, tags: ["office"] },
        { _id: 2, name: "ink", price: 2, tags: ["office", "new"] },
        { _id: 3, name: "cup", price: 1, tags: ["kitchen"] },
      ],
    },
    arguments: [{ tag: "office", maxPrice: 3 }],
    result: [
      { _id: 2, name: "ink", price: 2 },
      { _id: 1, name: "pen", price: 3 },
    ],
  },
  {
    title: "deletes the data of a user",
    name: "deleteMyData",
    data: {
      notes: [
        { _id: 1, owner: "ada" },
        { _id: 2, owner: "bob" },
      ],
      files: [{ _id: 3, owner: "ada" }],
    },
    arguments: [],
    result: { notes: 1, files: 1 },
    after: { notes: [{ _id: 2, owner: "bob" }], files: [] },
  },
  {
    title: "creates the profile of a new user",
    name: "onUserCreated",
    request: SYSTEM,
    data: { profiles: [] },
    arguments: [{ id: "u1", type: "normal", data: { email: "New@Example.com" } }],
    result: undefined,
    after: { profiles: [{ _id: "u1", email: "new@example.com", plan: "free" }] },
  },
  {
    title: "refuses a user whose profile exists",
    name: "onUserCreated",
    request: SYSTEM,
    data: { profiles: [{ _id: "u1" }] },
    arguments: [{ id: "u1", type: "normal", data: { email: "new@example.com" } }],
    failure: expect.stringContaining("Duplicate key error"),
    messages: [expect.stringContaining("profile of u1: Duplicate key error")],
  },
  {
    title: "reserves free seats",
    name: "reserveSeats",
    data: { shows: [{ _id: "s", free: 3 }] },
    arguments: ["s", 2],
    result: { status: "success" },
    after: { shows: [{ _id: "s", free: 1, bookings: [{ user: "ada", seats: 2 }] }] },
  },
  {
    title: "does not reserve more seats than there are",
    name: "reserveSeats",
    data: { shows: [{ _id: "s", free: 1 }] },
    arguments: ["s", 2],
    result: { status: "fail" },
    after: { shows: [{ _id: "s", free: 1 }] },
  },
  {
    title: "reports a thrown text",
    name: "reserveSeats",
    data: { shows: [] },
    arguments: ["s", 0],
    failure: "seats must be a positive number",
  },
  {
    title: "adds a comment",
    name: "addComment",
    data: { posts: [{ _id: 1, count: 0 }] },
    arguments: [1, "good"],
    result: true,
    after: { posts: [{ _id: 1, count: 1, comments: [{ author: "ada", text: "good" }] }] },
  },
  {
    title: "reports an error of a class of its own",
    name: "addComment",
    data: { posts: [] },
    arguments: [1, ""],
    failure: "ValidationError: a comment has 1 to 20 characters",
  },
  {
    title: "adds a favorite",
    name: "toggleFavorite",
    data: { favorites: [] },
    arguments: ["x"],
    result: true,
    after: { favorites: [{ _id: "ada", items: ["x"] }] },
  },
  {
    title: "removes a favorite",
    name: "toggleFavorite",
    data: { favorites: [{ _id: "ada", items: ["x", "y"] }] },
    arguments: ["x"],
    result: false,
    after: { favorites: [{ _id: "ada", items: ["y"] }] },
  },
  {
    title: "publishes drafts with a bulk write",
    name: "publishDrafts",
    data: {
      articles: [
        { _id: 1, state: "ready", title: "On Time" },
        { _id: 2, state: "draft", title: "No" },
      ],
    },
    arguments: [],
    result: 1,
    after: {
      articles: [
        { _id: 1, state: "published", title: "On Time", slug: "on-time" },
        { _id: 2, state: "draft", title: "No" },
        { _id: "log", published: 1 },
      ],
    },
  },
  {
    title: "closes a ticket with a system function",
    name: "closeTicket",
    data: { tickets: [{ _id: 1, state: "open" }] },
    arguments: [1],
    result: { closed: true, role: "agent" },
    after: { tickets: [{ _id: 1, state: "closed" }] },
  },
  {
    title: "does not close a ticket for a guest",
    name: "closeTicket",
    request: { user: BOB },
    data: { tickets: [{ _id: 1, state: "open" }] },
    arguments: [1],
    result: { closed: false, role: "guest" },
    after: { tickets: [{ _id: 1, state: "open" }] },
  },
  {
    title: "copies a template and writes the log without waiting",
    name: "copyTemplate",
    data: { templates: [{ _id: "t", title: "Plan", steps: [1, 2] }], audit: [], projects: [] },
    arguments: ["t", "p"],
    result: "p",
    after: {
      projects: [{ _id: "p", title: "Plan", steps: [1, 2], owner: "ada" }],
      audit: [{ _id: "p", copied: "t", by: "ada" }],
    },
  },
  {
    title: "writes a report with a pipeline whose cursor is not read",
    name: "monthlyReport",
    data: {
      visits: [
        { _id: 1, month: 1 },
        { _id: 2, month: 1 },
        { _id: 3, month: 2 },
      ],
      months: [],
    },
    arguments: [],
    result: [],
    after: {
      months: [
        { _id: 1, visits: 2 },
        { _id: 2, visits: 1 },
      ],
    },
  },
  {
    title: "reads values and the environment",
    name: "readSettings",
    data: {},
    arguments: [],
    result: { tag: "testing", api: "https://api.example.com", limit: 10, missing: true },
  },
  {
    title: "moves finished orders to the archive",
    name: "archiveOrders",
    data: {
      orders: [
        { _id: 1, state: "done" },
        { _id: 2, state: "open" },
      ],
      archive: [],
    },
    arguments: [],
    result: 1,
    after: { orders: [{ _id: 2, state: "open" }], archive: [{ _id: 1, state: "done" }] },
  },
  {
    title: "copies a changed name to posts",
    name: "onProfileChanged",
    request: { ...SYSTEM, isTrigger: true },
    data: {
      posts: [
        { _id: 1, author: "ada" },
        { _id: 2, author: "bob" },
      ],
    },
    arguments: [
      {
        operationType: "update",
        documentKey: { _id: "ada" },
        fullDocument: { _id: "ada", name: "Countess" },
        updateDescription: { updatedFields: { name: "Countess" }, removedFields: [] },
      },
    ],
    result: undefined,
    messages: ["renamed 1"],
    after: {
      posts: [
        { _id: 1, author: "ada", authorName: "Countess" },
        { _id: 2, author: "bob" },
      ],
    },
  },
];

/** Runs a case. `requests()` returns the HTTP requests that the function has sent. */
async function runCase(item, { seed, call, read, requests }) {
  await seed(item.data);
  const outcome = await call(item.name, item.arguments, { user: ADA, ...item.request }).catch((error) => error);
  if (item.failure === undefined) {
    if (outcome instanceof Error) {
      throw outcome;
    }
    expect(outcome.value).toEqual(item.result);
  } else {
    expect(outcome.message).toEqual(item.failure);
  }
  expect(outcome.messages.map(({ text }) => text)).toEqual(item.messages ?? []);
  for (const [collection, documents] of Object.entries(item.after ?? {})) {
    expect(await read(collection)).toEqual(documents);
  }
  if (item.requests !== undefined) {
    expect(requests()).toEqual(item.requests);
  }
}

module.exports = { CASES, ENVIRONMENT, VALUES, runCase };
