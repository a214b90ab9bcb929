"use strict";

const { digestAuthorization, digestChallenge } = require("./digest.js");
const { FunctionError, httpError } = require("./errors.js");
const { Gate } = require("./gate.js");
const { addCookies, readArguments } = require("./http-arguments.js");
const { exchange } = require("./http-exchange.js");
const { cookiesOf, headersOf, resultOf } = require("./http-result.js");

const METHODS = ["get", "post", "put", "patch", "delete", "head"];
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const KEEPING_METHOD = new Set([307, 308]);
/** The headers that only the host of the first request may receive. */
const SECRET_HEADERS = ["authorization", "cookie", "cookie2", "proxy-authorization", "www-authenticate"];

/** The limits of HTTP requests. Sizes are in bytes, times in milliseconds. */
const DEFAULT_LIMITS = Object.freeze({
  /** The maximum number of open sockets. More requests wait. */
  sockets: 25,
  /** The maximum size of a response's body, after decompression. */
  bodySize: 16 * 1024 * 1024,
  /** The maximum time of a request, with its redirects, after it has waited for a socket. */
  timeLimit: 60_000,
  redirects: 10,
});

const isRedirect = ({ statusCode, headers }) => REDIRECTS.has(statusCode) && headers.location !== undefined;

const withHeader = (request, name, value) => ({
  ...request,
  headers: new Map(request.headers).set(name.toLowerCase(), [name, value]),
});

/** Adds basic authentication, unless the function has set the header. */
function withBasic(request) {
  if (!request.credentials || request.headers.has("authorization")) {
    return request;
  }
  const { username, password } = request.credentials;
  const encoded = Buffer.from(`${username}:${password}`, "utf8").toString("base64");
  return withHeader(request, "Authorization", `Basic ${encoded}`);
}

/** Sends a request with digest authentication: first without an answer, then with one. */
async function exchangeWithDigest(request, settings) {
  const { method, url, credentials } = request;
  const uri = `${url.pathname}${url.search}`;
  let response = await exchange(request, settings);
  // A stale nonce is replaced once.
  for (let attempt = 0; attempt < 2 && response.statusCode === 401; attempt++) {
    const challenge = digestChallenge(headersOf(response).get("Www-Authenticate") ?? []);
    if (!challenge || (attempt > 0 && !challenge.isStale)) {
      break;
    }
    const value = digestAuthorization(challenge, { method, uri, ...credentials });
    response = await exchange(withHeader(request, "Authorization", toLatin1(value)), settings);
  }
  return response;
}

/** Returns a text as Node sends it in a header: its UTF-8 bytes. */
const toLatin1 = (text) => Buffer.from(text, "utf8").toString("latin1");

const exchangeOnce = (request, settings) =>
  request.usesDigest && request.credentials
    ? exchangeWithDigest(request, settings)
    : exchange(withBasic(request), settings);

/** Returns true if both URLs have one host, and the second does not give up encryption. */
function isSameHost(from, to) {
  const isUpgrade = from.protocol === "http:" && to.protocol === "https:" && from.port === "" && to.port === "";
  return from.origin === to.origin || (isUpgrade && from.hostname === to.hostname);
}

function targetOf(url, location) {
  let target;
  try {
    target = new URL(location, url);
  } catch {
    throw httpError("the server redirects to an invalid URL");
  }
  if (!["http:", "https:"].includes(target.protocol)) {
    throw httpError(`unsupported protocol scheme "${target.protocol.slice(0, -1)}" in a redirect`);
  }
  target.username = "";
  target.password = "";
  return target;
}

/** Returns the request that follows a redirect. */
function redirected(request, response) {
  const [location] = headersOf(response).get("Location");
  const url = targetOf(request.url, location);
  const headers = new Map(request.headers);
  const next = { ...request, url, headers };
  if (!isSameHost(request.url, url)) {
    for (const name of SECRET_HEADERS) {
      headers.delete(name);
    }
    next.credentials = null;
  }
  if (!KEEPING_METHOD.has(response.statusCode) && request.method !== "HEAD" && request.method !== "GET") {
    next.method = "GET";
    next.body = undefined;
    for (const name of [...headers.keys()].filter((key) => key.startsWith("content-"))) {
      headers.delete(name);
    }
  }
  return next;
}

/** Sends a request and follows its redirects. Calls `seen` with each response. */
async function follow(request, settings, seen = () => {}) {
  const skipsBody = request.followsRedirects ? isRedirect : () => false;
  let current = request;
  for (let count = 0; ; count++) {
    const response = await exchangeOnce(current, { ...settings, skipsBody });
    seen(response);
    const isLast = !request.followsRedirects || !REDIRECTS.has(response.statusCode);
    if (isLast || !headersOf(response).has("Location")) {
      return { method: current.method, response };
    }
    if (count === settings.redirects) {
      throw httpError(`stopped after ${settings.redirects} redirects`);
    }
    current = redirected(current, response);
  }
}

async function perform(request, settings) {
  if (request.before) {
    const cookies = new Map();
    await follow(request.before, settings, (response) => {
      for (const [name, value] of cookiesOf(headersOf(response))) {
        cookies.set(name, value);
      }
    });
    // As text, so that values that a function could not set go back as they are.
    const text = Array.from(cookies, ([name, value]) => `${name}=${value}`).join("; ");
    addCookies(request.headers, text);
  }
  const { method, response } = await follow(request, settings);
  return resultOf(method, response);
}

/** Describes the error of a connection. One with several addresses has an error for each. */
function describe(error) {
  const [first = error] = error?.errors ?? [];
  const message = first?.message || first?.code || String(first);
  const isOfBody = /^(Z_|ERR__ERROR|ERR_BROTLI)/.test(first?.code);
  return isOfBody ? `the body of the response cannot be decompressed: ${message}` : message;
}

/**
 * Runs an operation with a signal that is aborted after a time, or with the outer signal.
 *
 * @throws FunctionError with the code `HTTPError`, or that of the operation
 */
async function withDeadline(outer, milliseconds, operation) {
  const controller = new AbortController();
  const abort = () => controller.abort();
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    abort();
  }, milliseconds);
  outer?.addEventListener("abort", abort, { once: true });
  try {
    return await operation(controller.signal);
  } catch (error) {
    if (isLate) {
      throw httpError(`no complete answer within ${milliseconds} ms`);
    }
    throw outer?.aborted ? httpError("the request was aborted") : error;
  } finally {
    clearTimeout(timer);
    outer?.removeEventListener("abort", abort);
  }
}

/**
 * Creates `context.http` for the calls of functions.
 *
 * @param options `{ limits, signal, gate, user }`: `limits` replaces some of `DEFAULT_LIMITS`;
 *   `signal` aborts all requests; `gate` is a `Gate` that limits the sockets of several clients
 *   together; `user` is the user whose share of them the requests take.
 */
function makeHttp({ limits, signal, gate, user } = {}) {
  const settings = { ...DEFAULT_LIMITS, ...limits };
  const sockets = gate ?? new Gate(settings.sockets);

  const call = (method) => async (args) => {
    const request = readArguments(method, args);
    const run = (inner) => perform(request, { ...settings, signal: inner });
    try {
      return await sockets.run(() => withDeadline(signal, settings.timeLimit, run), signal, user);
    } catch (error) {
      throw error instanceof FunctionError
        ? error
        : httpError(signal?.aborted ? "the request was aborted" : describe(error));
    }
  };
  return Object.freeze(Object.fromEntries(METHODS.map((method) => [method, call(method.toUpperCase())])));
}

module.exports = { DEFAULT_LIMITS, Gate, makeHttp };
