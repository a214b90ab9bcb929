"use strict";

const { assert, AssertionError, ValueAssertionError } = require("./assert.js");
const { didYouMean } = require("./suggest.js");

/** Milliseconds between two queries of a log that is followed. */
const FOLLOW_INTERVAL = 1000;

/** Seconds for which an entry may be written after others with later ids. */
const LATE_SECONDS = 10;

/** The maximum number of entries of one query. */
const MOST_ENTRIES = 10_000;

/** The keys of a query of the log. */
const QUERY_KEYS = ["type", "errors", "user", "from", "to", "request", "after", "limit"];

/** The types of entries, and the names of their families. */
const FAMILIES = ["auth", "function", "service", "trigger"];
const TYPES = [
  "API",
  "API_KEY",
  "AUTH",
  "AUTH_TRIGGER",
  "DB_TRIGGER",
  "FUNCTION",
  "PUSH",
  "SCHEDULED_TRIGGER",
  "SERVICE_FUNCTION",
  "SERVICE_STREAM_FUNCTION",
  "STREAM_FUNCTION",
  "TRIGGER_FAILURE",
];

/** Returns the type or family that a name means. */
function typeOf(name) {
  const known = [...FAMILIES, ...TYPES];
  if (!FAMILIES.includes(name) && !TYPES.includes(assert.string(name, "type").toUpperCase())) {
    throw new AssertionError(`unknown type ${JSON.stringify(name)} of log entries${didYouMean(name, known)}`);
  }
  return name;
}

/** Checks that a query has only known keys. */
function checkKeys(options) {
  const unknown = Object.keys(assert.object(options, "options")).find((key) => !QUERY_KEYS.includes(key));
  if (unknown !== undefined) {
    throw new AssertionError(`unknown option '${unknown}' of a query of the log${didYouMean(unknown, QUERY_KEYS)}`);
  }
  return options;
}

/** Returns a time as a `Date`. */
function time(value, name) {
  const date = new Date(value);
  if (Number.isNaN(date.getTime())) {
    throw new ValueAssertionError("a date", value, name);
  }
  return date;
}

const optional = (check, value, name) => (value === undefined ? undefined : check(value, name));

/** Converts a request id, or the link of an error that ends in one. */
function requestId(value, name) {
  const [, id] = /[?&]co_id=([^&#]+)/.exec(assert.string(value, name)) ?? [];
  return id === undefined ? value : decodeURIComponent(id);
}

function limitOf(limit) {
  if (!Number.isInteger(limit) || limit < 1 || limit > MOST_ENTRIES) {
    throw new ValueAssertionError(`a whole number from 1 to ${MOST_ENTRIES}`, limit, "limit");
  }
  return limit;
}

/** Converts a query of the log to the addon's form. */
function toQuery(options) {
  const { type = [], errors, user, from, to, request, after, limit } = checkKeys(options);
  return {
    types: [type].flat().map(typeOf),
    errors: Boolean(errors),
    user: optional(assert.string, user, "user"),
    from: optional(time, from, "from"),
    to: optional(time, to, "to"),
    requestId: optional(requestId, request, "request"),
    after,
    limit: optional(limitOf, limit, "limit"),
  };
}

const withoutUndefined = (document) =>
  Object.fromEntries(Object.entries(document).filter(([, value]) => value !== undefined));

/** The operator's API of a backend. */
class Admin {
  #run;

  constructor(run) {
    this.#run = run;
  }

  async logs(options = {}) {
    return this.#run("logs", { query: withoutUndefined(toQuery(options)) });
  }

  /** Yields entries as they are written, also those that another node writes late. */
  async *followLogs(options = {}) {
    const { from: given = new Date(), ...query } = checkKeys(options);
    const from = time(given, "from");
    // BSON is loaded late, because a program may replace it.
    const { ObjectId } = require("bson");
    const seen = new Map();
    let newest = from.getTime();
    for (;;) {
      const after = ObjectId.createFromTime(Math.max(0, Math.floor(newest / 1000) - LATE_SECONDS));
      const found = await this.logs({ ...query, after, limit: MOST_ENTRIES });
      for (const entry of found.reverse()) {
        const id = entry.id.toHexString();
        if (!seen.has(id) && entry.completed >= from) {
          yield entry;
        }
        seen.set(id, entry.completed);
        newest = Math.max(newest, entry.completed.getTime());
      }
      for (const [id, completed] of seen) {
        if (completed.getTime() < newest - 2 * LATE_SECONDS * 1000) {
          seen.delete(id);
        }
      }
      await new Promise((resolve) => setTimeout(resolve, FOLLOW_INTERVAL));
    }
  }

  async runFunction(name, args = [], options = {}) {
    const { user } = assert.object(options, "options");
    const payload = { name: assert.string(name, "name"), arguments: assert.array(args, "args") };
    return this.#run("runFunction", { ...payload, ...(user !== undefined && { user: assert.string(user, "user") }) });
  }
}

module.exports = { Admin };
