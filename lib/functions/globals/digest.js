"use strict";

const { createHash, randomBytes } = require("node:crypto");

/** The supported hash functions, the preferred one first. */
const HASHES = new Map([
  ["SHA-256", "sha256"],
  ["MD5", "md5"],
]);

/** The end of the names of algorithms whose key depends on the nonces. */
const SUFFIX = "-SESS";

const NEXT_ITEM = /[\s,]*([!#$%&'*+.^_`|~0-9a-z-]+)(?:(\s*=\s*)(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?/iy;

/**
 * Reads the challenges of a `WWW-Authenticate` header: `{ scheme, parameters }`, with the names
 * of the parameters in lower case.
 */
function challengesOf(header) {
  const challenges = [];
  NEXT_ITEM.lastIndex = 0;
  for (let item = NEXT_ITEM.exec(header); item; item = NEXT_ITEM.exec(header)) {
    const [, name, isParameter, quoted, token] = item;
    if (!isParameter) {
      challenges.push({ scheme: name.toLowerCase(), parameters: new Map() });
    } else if (challenges.length > 0) {
      const value = quoted === undefined ? token : quoted.replace(/\\(.)/g, "$1");
      challenges.at(-1).parameters.set(name.toLowerCase(), value);
    }
  }
  return challenges;
}

/** Reads a challenge of the scheme Digest. Returns undefined for one that is not supported. */
function readDigest({ scheme, parameters }) {
  const algorithm = (parameters.get("algorithm") ?? "MD5").toUpperCase();
  const isSession = algorithm.endsWith(SUFFIX);
  const hash = HASHES.get(isSession ? algorithm.slice(0, -SUFFIX.length) : algorithm);
  const qop = parameters
    .get("qop")
    ?.toLowerCase()
    .split(/[\s,]+/);
  const isSupported = hash !== undefined && (qop === undefined || qop.includes("auth"));
  if (scheme !== "digest" || !isSupported || !parameters.has("nonce")) {
    return undefined;
  }
  return {
    hash,
    isSession,
    algorithm: parameters.get("algorithm"),
    realm: parameters.get("realm") ?? "",
    nonce: parameters.get("nonce"),
    opaque: parameters.get("opaque"),
    hasQop: qop !== undefined,
    isStale: parameters.get("stale")?.toLowerCase() === "true",
    hashesName: parameters.get("userhash")?.toLowerCase() === "true",
  };
}

/**
 * Returns the best Digest challenge of a response's `WWW-Authenticate` headers, or undefined if
 * there is none that can be answered.
 */
function digestChallenge(headers) {
  const challenges = headers.flatMap(challengesOf).map(readDigest).filter(Boolean);
  return challenges.find(({ hash }) => hash === "sha256") ?? challenges[0];
}

const quote = (value) => `"${value.replace(/["\\]/g, "\\$&")}"`;

/** Returns the answer to a challenge, as RFC 7616 defines it. */
function responseTo(challenge, { method, uri, username, password, cnonce, nc }) {
  const { realm, nonce, isSession, hasQop } = challenge;
  const hash = (...parts) => createHash(challenge.hash).update(parts.join(":")).digest("hex");
  const secret = hash(username, realm, password);
  const key = isSession ? hash(secret, nonce, cnonce) : secret;
  const request = hash(method, uri);
  return hasQop ? hash(key, nonce, nc, cnonce, "auth", request) : hash(key, nonce, request);
}

/**
 * Returns the `Authorization` header for a challenge.
 *
 * @param request `{ method, uri, username, password }`; `uri` is the path with the query
 */
function digestAuthorization(challenge, request, cnonce = randomBytes(16).toString("hex")) {
  const { hash, realm, nonce, opaque, algorithm, hasQop, isSession, hashesName } = challenge;
  // Each answer belongs to a nonce of its own, so the count is always one.
  const nc = "00000001";
  const { username, uri } = request;
  const shownName = hashesName ? createHash(hash).update(`${username}:${realm}`).digest("hex") : username;
  const fields = [
    `username=${quote(shownName)}`,
    `realm=${quote(realm)}`,
    `nonce=${quote(nonce)}`,
    `uri=${quote(uri)}`,
    `response="${responseTo(challenge, { ...request, cnonce, nc })}"`,
    ...(algorithm === undefined ? [] : [`algorithm=${algorithm}`]),
    ...(hasQop ? ["qop=auth", `nc=${nc}`] : []),
    ...(hasQop || isSession ? [`cnonce=${quote(cnonce)}`] : []),
    ...(opaque === undefined ? [] : [`opaque=${quote(opaque)}`]),
    ...(hashesName ? ["userhash=true"] : []),
  ];
  return `Digest ${fields.join(", ")}`;
}

module.exports = { digestAuthorization, digestChallenge };
