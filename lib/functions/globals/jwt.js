"use strict";

const crypto = require("node:crypto");
const { bytesOf } = require("./binary.js");
const { invalidParameter } = require("./errors.js");

const PSS = crypto.constants.RSA_PKCS1_PSS_PADDING;
const SALT_OF_DIGEST = crypto.constants.RSA_PSS_SALTLEN_DIGEST;
const SALT_OF_SIGNATURE = crypto.constants.RSA_PSS_SALTLEN_AUTO;
const CURVES = { 256: "prime256v1", 384: "secp384r1", 512: "secp521r1" };
const RSA_KEYS = { RS: ["rsa"], PS: ["rsa", "rsa-pss"] };
const FAMILIES = ["HS", "RS", "ES", "PS"];

/** The algorithms, by the names in a token's header: `{ family, size }`. */
const ALGORITHMS = new Map(
  FAMILIES.flatMap((family) => [256, 384, 512].map((size) => [`${family}${size}`, { family, size }])),
);

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function algorithmNamed(name) {
  const algorithm = typeof name === "string" ? ALGORITHMS.get(name) : undefined;
  if (!algorithm) {
    const names = [...ALGORITHMS.keys()].join(", ");
    throw invalidParameter(`the signing method ${JSON.stringify(name)} is not supported: use one of ${names}`);
  }
  return algorithm;
}

/**
 * Returns the bytes of a secret for HMAC. It must not be a PEM key: with a public key as the
 * secret, every owner of that key could sign tokens.
 */
function secretBytes(key) {
  const bytes = bytesOf(key);
  if (!bytes || bytes.length === 0) {
    throw invalidParameter("the key of an HS* signing method must be a string that is not empty");
  }
  if (bytes.includes("-----BEGIN ")) {
    throw invalidParameter("a PEM key does not fit an HS* signing method");
  }
  return bytes;
}

/** Reads a PEM key for an algorithm with two keys, and checks that the key fits it. */
function pemKey(read, key, { family, size }) {
  let object;
  try {
    object = typeof key === "string" && key.includes("-----BEGIN ") ? read(key) : undefined;
  } catch {
    // Reported below, without the text of OpenSSL.
  }
  if (!object) {
    const kind = read === crypto.createPrivateKey ? "private" : "public";
    throw invalidParameter(`the key of the signing method ${family}${size} must be a ${kind} key in PEM format`);
  }
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = object;
  const fits = family === "ES" ? type === "ec" && details.namedCurve === CURVES[size] : RSA_KEYS[family].includes(type);
  if (!fits) {
    throw invalidParameter(`the key does not fit the signing method ${family}${size}`);
  }
  return object;
}

function signingOptions(family, key, saltLength) {
  if (family === "ES") {
    return { key, dsaEncoding: "ieee-p1363" };
  }
  return family === "PS" ? { key, padding: PSS, saltLength } : { key };
}

const hmac = (size, key, text) => crypto.createHmac(`sha${size}`, secretBytes(key)).update(text).digest();

function signatureOf(text, algorithm, key) {
  const { family, size } = algorithm;
  if (family === "HS") {
    return hmac(size, key, text);
  }
  const options = signingOptions(family, pemKey(crypto.createPrivateKey, key, algorithm), SALT_OF_DIGEST);
  try {
    return crypto.sign(`sha${size}`, Buffer.from(text), options);
  } catch {
    throw invalidParameter(`the key does not fit the signing method ${family}${size}`);
  }
}

function isSignature(text, signature, algorithm, key) {
  const { family, size } = algorithm;
  if (family === "HS") {
    const expected = hmac(size, key, text);
    return signature.length === expected.length && crypto.timingSafeEqual(signature, expected);
  }
  // Some libraries sign with the longest salt, so the signature decides.
  const options = signingOptions(family, pemKey(crypto.createPublicKey, key, algorithm), SALT_OF_SIGNATURE);
  try {
    return crypto.verify(`sha${size}`, Buffer.from(text), options, signature);
  } catch {
    return false;
  }
}

/** Replaces a `Long` by its number: JSON would have both halves as fields. */
function claim(_name, value) {
  return isObject(value) && value._bsontype === "Long" && typeof value.toNumber === "function"
    ? value.toNumber()
    : value;
}

const encodePart = (value) => Buffer.from(JSON.stringify(value, claim)).toString("base64url");

function encode(signingMethod, payload, secret, customHeaderFields = {}) {
  const algorithm = algorithmNamed(signingMethod);
  if (!isObject(payload)) {
    throw invalidParameter("the payload of a token must be an object");
  }
  if (customHeaderFields !== null && !isObject(customHeaderFields)) {
    throw invalidParameter("the additional fields of a token's header must be an object");
  }
  const header = { alg: signingMethod, typ: "JWT", ...customHeaderFields };
  // Another algorithm in the header than the one that signs would make every token invalid.
  header.alg = signingMethod;
  const text = `${encodePart(header)}.${encodePart(payload)}`;
  return `${text}.${signatureOf(text, algorithm, secret).toString("base64url")}`;
}

const malformed = () => invalidParameter("the token is malformed: it must be a JSON Web Token of three parts");

function decodePart(part) {
  try {
    const value = JSON.parse(Buffer.from(part, "base64url").toString("utf8"));
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Parses a token, and trusts nothing in it yet. */
function parse(token) {
  const parts = typeof token === "string" ? token.split(".", 4) : [];
  if (parts.length !== 3 || !parts.every((part) => /^[A-Za-z0-9_-]*$/.test(part))) {
    throw malformed();
  }
  const header = decodePart(parts[0]);
  const payload = decodePart(parts[1]);
  if (!header || !payload) {
    throw malformed();
  }
  return { header, payload, text: `${parts[0]}.${parts[1]}`, signature: Buffer.from(parts[2], "base64url") };
}

/** Checks `exp` and `nbf`, in seconds. A claim with another type than number is not ignored. */
function checkTime({ exp, nbf }) {
  const now = Date.now() / 1000;
  if (exp !== undefined && exp !== null && !(typeof exp === "number" && now < exp)) {
    throw invalidParameter("token is expired");
  }
  if (nbf !== undefined && nbf !== null && !(typeof nbf === "number" && now >= nbf)) {
    throw invalidParameter("token is not valid yet");
  }
}

function decode(jwtString, key, returnHeader = false, acceptedSigningMethods = undefined) {
  const { header, payload, text, signature } = parse(jwtString);
  const algorithm = algorithmNamed(header.alg);
  const acceptsAll = acceptedSigningMethods === undefined || acceptedSigningMethods === null;
  if (!acceptsAll && !(Array.isArray(acceptedSigningMethods) && acceptedSigningMethods.includes(header.alg))) {
    throw invalidParameter(`signing method ${header.alg} is invalid`);
  }
  if (header.crit !== undefined) {
    throw invalidParameter("the token has critical header fields, which are not supported");
  }
  if (!isSignature(text, signature, algorithm, key)) {
    throw invalidParameter("signature is invalid");
  }
  checkTime(payload);
  return returnHeader ? { header, payload } : payload;
}

/** The global `utils.jwt` of functions. */
module.exports = { jwt: Object.freeze({ encode, decode }) };
