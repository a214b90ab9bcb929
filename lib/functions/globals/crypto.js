"use strict";

const nodeCrypto = require("node:crypto");
const { bytesOf, isBinary, toBinary } = require("./binary.js");
const { invalidParameter } = require("./errors.js");

const NONCE_SIZE = 12;
const TAG_SIZE = 16;
const KEY_SIZES = [16, 24, 32];
const HASHES = ["sha1", "sha256", "md5"];
const HMAC_HASHES = ["sha1", "sha256", "sha512"];
const { RSA_PKCS1_PADDING, RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_AUTO, RSA_PSS_SALTLEN_DIGEST } = nodeCrypto.constants;

function oneOf(values, value, method, name) {
  if (!values.includes(value)) {
    const expected = values.map((item) => `"${item}"`).join(", ");
    throw invalidParameter(`utils.crypto.${method}: "${name}" argument must be one of ${expected}`);
  }
  return value;
}

/** Returns the bytes of an argument that is a string or a `Binary`. */
function inputBytes(value, method, name) {
  const bytes = bytesOf(value);
  if (!bytes) {
    throw invalidParameter(`utils.crypto.${method}: "${name}" argument must be a string or a Binary`);
  }
  return bytes;
}

/** Returns the bytes of an argument that is a `Binary`. */
function binaryBytes(value, method, name) {
  if (!isBinary(value) && !ArrayBuffer.isView(value)) {
    throw invalidParameter(`utils.crypto.${method}: "${name}" argument must be a Binary`);
  }
  return bytesOf(value);
}

/** Returns the name of the AES cipher for a key, and the key's bytes. */
function cipherFor(encryptionMethod, key, method) {
  oneOf(["aes"], encryptionMethod, method, "encryptionMethod");
  const bytes = inputBytes(key, method, "secretKey");
  if (!KEY_SIZES.includes(bytes.length)) {
    const sizes = KEY_SIZES.join(", ");
    throw invalidParameter(`utils.crypto.${method}: "secretKey" argument must have one of ${sizes} bytes`);
  }
  return { name: `aes-${bytes.length * 8}-gcm`, key: bytes };
}

/** Encrypts with AES-GCM. The result is the nonce, the encrypted bytes and the tag. */
function encrypt(encryptionMethod, plainText, secretKey) {
  const { name, key } = cipherFor(encryptionMethod, secretKey, "encrypt");
  const input = inputBytes(plainText, "encrypt", "plainText");
  const nonce = nodeCrypto.randomBytes(NONCE_SIZE);
  const cipher = nodeCrypto.createCipheriv(name, key, nonce, { authTagLength: TAG_SIZE });
  const encrypted = [cipher.update(input), cipher.final()];
  return toBinary(Buffer.concat([nonce, ...encrypted, cipher.getAuthTag()]));
}

function decrypt(encryptionMethod, encryptedText, secretKey) {
  const { name, key } = cipherFor(encryptionMethod, secretKey, "decrypt");
  const input = binaryBytes(encryptedText, "decrypt", "encryptedText");
  if (input.length < NONCE_SIZE + TAG_SIZE) {
    throw invalidParameter("utils.crypto.decrypt: the encrypted text is too short");
  }
  const decipher = nodeCrypto.createDecipheriv(name, key, input.subarray(0, NONCE_SIZE), { authTagLength: TAG_SIZE });
  decipher.setAuthTag(input.subarray(-TAG_SIZE));
  try {
    const decrypted = [decipher.update(input.subarray(NONCE_SIZE, -TAG_SIZE)), decipher.final()];
    return toBinary(Buffer.concat(decrypted));
  } catch {
    throw invalidParameter("utils.crypto.decrypt: the key is wrong, or the encrypted text has been changed");
  }
}

/** Reads an RSA key in PEM format, PKCS#1 or another. */
function rsaKey(read, pem, method, name) {
  let key;
  try {
    key = typeof pem === "string" ? read(pem) : undefined;
  } catch {
    // Reported below, without the text of OpenSSL.
  }
  if (key?.asymmetricKeyType !== "rsa") {
    throw invalidParameter(`utils.crypto.${method}: "${name}" argument must be an RSA key in PEM format`);
  }
  return key;
}

function paddingFor(scheme, method, saltLength) {
  const isPss = oneOf(["pss", "pkcs1v15"], scheme, method, "signatureScheme") === "pss";
  return isPss ? { padding: RSA_PKCS1_PSS_PADDING, saltLength } : { padding: RSA_PKCS1_PADDING };
}

function sign(encryptionMethod, message, privateKey, signatureScheme = "pss") {
  oneOf(["rsa"], encryptionMethod, "sign", "encryptionMethod");
  const input = inputBytes(message, "sign", "message");
  const key = rsaKey(nodeCrypto.createPrivateKey, privateKey, "sign", "privateKey");
  const padding = paddingFor(signatureScheme, "sign", RSA_PSS_SALTLEN_DIGEST);
  try {
    return toBinary(nodeCrypto.sign("sha256", input, { key, ...padding }));
  } catch {
    throw invalidParameter('utils.crypto.sign: "privateKey" argument is too short');
  }
}

function verify(encryptionMethod, message, publicKey, signature, signatureScheme = "pss") {
  oneOf(["rsa"], encryptionMethod, "verify", "encryptionMethod");
  const input = inputBytes(message, "verify", "message");
  const key = rsaKey(nodeCrypto.createPublicKey, publicKey, "verify", "publicKey");
  const given = binaryBytes(signature, "verify", "signature");
  const padding = paddingFor(signatureScheme, "verify", RSA_PSS_SALTLEN_AUTO);
  try {
    return nodeCrypto.verify("sha256", input, { key, ...padding }, given);
  } catch {
    return false;
  }
}

function hmac(input, secret, hashFunction, outputFormat) {
  const bytes = inputBytes(input, "hmac", "input");
  const key = inputBytes(secret, "hmac", "secret");
  oneOf(HMAC_HASHES, hashFunction, "hmac", "hashFunction");
  oneOf(["hex", "base64"], outputFormat, "hmac", "outputFormat");
  return nodeCrypto.createHmac(hashFunction, key).update(bytes).digest(outputFormat);
}

function hash(hashFunction, input) {
  oneOf(HASHES, hashFunction, "hash", "hashFunction");
  return toBinary(
    nodeCrypto
      .createHash(hashFunction)
      .update(inputBytes(input, "hash", "input"))
      .digest(),
  );
}

/** The global `utils.crypto` of functions. */
module.exports = { crypto: Object.freeze({ encrypt, decrypt, sign, verify, hmac, hash }) };
