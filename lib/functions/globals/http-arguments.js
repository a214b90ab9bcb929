"use strict";

const { validateHeaderName } = require("node:http");
const { bytesOf } = require("./binary.js");
const { invalidParameter } = require("./errors.js");
const { textOf, toPlainJson } = require("./extended.js");
const { encodeForm } = require("./multipart.js");

const PROTOCOLS = ["http:", "https:"];
const STRINGS = ["url", "scheme", "host", "domain", "path", "fragment", "username", "password", "authUrl"];
const BOOLEANS = ["digestAuth", "followRedirects", "encodeBodyAsJSON"];
const DOCUMENTS = ["query", "headers", "form"];

/** The headers that describe the connection or the body's length: they are set by the client. */
const OWN_HEADERS = new Set([
  "connection",
  "content-length",
  "expect",
  "host",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isMissing = (value) => value === undefined || value === null;

const wrongType = (name, expected) => invalidParameter(`http request: "${name}" argument must be ${expected}`);

function checkTypes(args) {
  if (!isObject(args)) {
    throw invalidParameter("http request: the argument must be an object");
  }
  const check = (names, holds, expected) => {
    const wrong = names.find((name) => !isMissing(args[name]) && !holds(args[name]));
    if (wrong) {
      throw wrongType(wrong, expected);
    }
  };
  check(STRINGS, (value) => typeof value === "string", "a string");
  check(BOOLEANS, (value) => typeof value === "boolean", "a boolean");
  check(DOCUMENTS, isObject, "an object");
}

function parseUrl(text, name) {
  let url;
  try {
    url = new URL(text);
  } catch {
    throw wrongType(name, "a URL with a scheme and a host");
  }
  if (!PROTOCOLS.includes(url.protocol)) {
    throw invalidParameter(`http request: unsupported protocol scheme "${url.protocol.slice(0, -1)}"`);
  }
  return url;
}

/** Puts a URL together from its parts. Each part can only set the part that it names. */
function urlOfParts({ scheme, host, domain, path, fragment }) {
  const name = host ?? domain;
  if (isMissing(name)) {
    throw invalidParameter('http request: "url" or "host" argument must be given');
  }
  if (name === "" || /[\s/\\?#@]/.test(name)) {
    throw wrongType("host", "the name of a host, with a port or without");
  }
  if (!isMissing(scheme) && !/^[a-z][a-z0-9+.-]*$/i.test(scheme)) {
    throw wrongType("scheme", '"http" or "https"');
  }
  const url = parseUrl(`${scheme ?? "http"}://${name}`, "host");
  if (path) {
    url.pathname = path.startsWith("/") ? path : `/${path}`;
  }
  url.hash = fragment ?? "";
  return url;
}

/** Returns the values of a header or a query parameter as texts. */
function textsOf(name, value) {
  const items = Array.isArray(value) ? value : [value];
  if (items.some((item) => isMissing(item) || (typeof item === "object" && typeof item._bsontype !== "string"))) {
    throw wrongType(name, "an object with arrays of strings");
  }
  return items.map(textOf);
}

function decodePart(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Removes the credentials from a URL. Returns them, or null. */
function takeCredentials(url) {
  const { username, password } = url;
  url.username = "";
  url.password = "";
  return username || password ? { username: decodePart(username), password: decodePart(password) } : null;
}

/** Returns a header's value as Node sends it: its UTF-8 bytes. */
function headerValue(name, value) {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these characters could end the header
  if (/[\x00-\x08\x0a-\x1f\x7f]/.test(value)) {
    throw invalidParameter(`http request: the value of the header "${name}" has a control character`);
  }
  return Buffer.from(value, "utf8").toString("latin1");
}

function headersOf(given) {
  const headers = new Map();
  for (const [name, value] of Object.entries(given ?? {})) {
    try {
      validateHeaderName(name);
    } catch {
      throw invalidParameter(`http request: ${JSON.stringify(name)} is not the name of a header`);
    }
    const key = name.toLowerCase();
    const texts = textsOf("headers", value).map((text) => headerValue(name, text));
    if (!OWN_HEADERS.has(key) && texts.length > 0) {
      const before = headers.get(key)?.[1];
      headers.set(key, [name, [...(before ? [before] : []), ...texts].join(key === "cookie" ? "; " : ",")]);
    }
  }
  return headers;
}

function cookiePair(name, value) {
  try {
    validateHeaderName(name);
  } catch {
    throw invalidParameter(`http request: ${JSON.stringify(name)} is not the name of a cookie`);
  }
  const text = textOf(value);
  if (!/^[\x20-\x7e]*$/.test(text) || /["\\;]/.test(text)) {
    throw invalidParameter(`http request: the value of the cookie "${name}" has a character that cookies cannot have`);
  }
  return `${name}=${/[ ,]/.test(text) ? `"${text}"` : text}`;
}

/** Adds cookies, an object or the text of a header, to a request's headers. */
function addCookies(headers, cookies) {
  if (typeof cookies !== "string" && !isObject(cookies)) {
    throw wrongType("cookies", "an object");
  }
  const added =
    typeof cookies === "string"
      ? headerValue("Cookie", cookies)
      : Object.entries(cookies)
          .map(([name, value]) => cookiePair(name, value))
          .join("; ");
  const all = [headers.get("cookie")?.[1], added].filter(Boolean).join("; ");
  if (all) {
    headers.set("cookie", ["Cookie", all]);
  }
}

/** Returns the body as bytes, or undefined. Sets the header of its type if it has none. */
function bodyOf({ body, form, encodeBodyAsJSON }, headers) {
  if (!isMissing(form)) {
    if (!isMissing(body)) {
      throw invalidParameter('http request: only one of "body" and "form" can be given');
    }
    const encoded = encodeForm(form);
    // Only this value has the boundary.
    headers.set("content-type", ["Content-Type", encoded.contentType]);
    return encoded.body;
  }
  if (isMissing(body)) {
    return undefined;
  }
  if (encodeBodyAsJSON) {
    if (!headers.has("content-type")) {
      headers.set("content-type", ["Content-Type", "application/json"]);
    }
    return Buffer.from(JSON.stringify(toPlainJson(body)) ?? "null");
  }
  const bytes = bytesOf(body);
  if (!bytes) {
    throw wrongType("body", 'a string or a Binary, or an object with "encodeBodyAsJSON"');
  }
  return bytes;
}

function credentialsOf({ username, password }, url) {
  const inUrl = takeCredentials(url);
  if (isMissing(username) && isMissing(password)) {
    return inUrl;
  }
  return { username: username ?? inUrl?.username ?? "", password: password ?? inUrl?.password ?? "" };
}

/** Returns the request for a cookie that goes before another one. */
function authRequest(authUrl, followsRedirects) {
  const url = parseUrl(authUrl, "authUrl");
  const credentials = takeCredentials(url);
  return { method: "GET", url, headers: new Map(), credentials, usesDigest: false, followsRedirects };
}

/**
 * Reads the argument of a method of `context.http`.
 *
 * Returns `{ method, url, headers, body?, credentials, usesDigest, followsRedirects, before? }`.
 * `headers` maps names in lower case to `[name, value]`, and `before` is a request for a cookie.
 *
 * @throws FunctionError with the code `InvalidParameter`
 */
function readArguments(method, args) {
  checkTypes(args);
  const url = isMissing(args.url) ? urlOfParts(args) : parseUrl(args.url, "url");
  for (const [name, value] of Object.entries(args.query ?? {})) {
    for (const text of textsOf("query", value)) {
      url.searchParams.append(name, text);
    }
  }
  const headers = headersOf(args.headers);
  if (!isMissing(args.cookies)) {
    addCookies(headers, args.cookies);
  }
  const credentials = credentialsOf(args, url);
  const usesDigest = Boolean(args.digestAuth);
  if (usesDigest && !credentials) {
    throw invalidParameter('http request: "digestAuth" needs "username" and "password"');
  }
  if (usesDigest) {
    headerValue("Authorization", credentials.username);
  }
  const body = bodyOf(args, headers);
  const followsRedirects = Boolean(args.followRedirects);
  const before = args.authUrl ? authRequest(args.authUrl, followsRedirects) : undefined;
  return { method, url, headers, body, credentials, usesDigest, followsRedirects, before };
}

module.exports = { addCookies, readArguments };
