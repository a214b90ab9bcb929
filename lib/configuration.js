"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { assert, TypeAssertionError, ValueAssertionError } = require("./assert.js");
const { functionOptions, unknownFunctionOptions } = require("./functions/options.js");

/** The modes of the option `metadata`: the storage of logged-in users between two runs. */
const MetadataMode = Object.freeze({
  NoEncryption: "noEncryption",
  Encryption: "encryption",
  NoMetadata: "noMetadata",
  InMemory: "inMemory",
});

/** The options that limit one operation of a user. Each value is a positive integer. */
const LIMITS = ["maxDocuments", "maxAnswerBytes", "maxTimeMS", "maxWriteDocuments"];

/** The options of a backend in this process. */
const BACKEND_KEYS = new Set([
  ...LIMITS,
  "store",
  "definition",
  "durability",
  "changeRetention",
  "logRetention",
  "watchDefinition",
  "dataSources",
  "tokenAudience",
  "functions",
  "secrets",
]);

/** All options of an app. Some exist only for compatibility with the Realm SDK. */
const KNOWN_KEYS = new Set([
  ...BACKEND_KEYS,
  "id",
  "baseUrl",
  "app",
  "timeout",
  "multiplexSessions",
  "baseFilePath",
  "metadata",
  "fetch",
  "logger",
]);

/** The maximum value of a limit. It replaces larger values. */
const MAX_LIMIT = 2 ** 32 - 1;

/** The prefix of the environment variables that contain the addresses of data sources. */
const DATA_SOURCE_VARIABLE = "USERKEEP_DATA_SOURCE_";

/** The prefix of the environment variables that contain secrets. */
const SECRET_VARIABLE = "USERKEEP_SECRET_";

/** The length of an encryption key, in bytes. */
const KEY_LENGTH = 64;

/** Returns an option that is a string, or else its environment variable, or undefined. */
function setting(config, name, variable) {
  const value = config[name];
  if (value !== undefined && value !== null) {
    return assert.string(value, name);
  }
  return process.env[variable] || undefined;
}

/** Checks `{ seconds, bytes }`. */
function checkRetention(retention, option) {
  if (retention === undefined) {
    return;
  }
  assert.object(retention, option);
  for (const name of ["seconds", "bytes"]) {
    const value = retention[name];
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 0)) {
      throw new ValueAssertionError("a whole number that is not negative", value, `${option}.${name}`);
    }
  }
}

function checkTypes(config) {
  assert.string(config.id, "id");
  if (config.id === "") {
    throw new Error("Expected 'id' to be the id of an app, got an empty string");
  }
  const optional = {
    timeout: "number",
    multiplexSessions: "boolean",
    baseFilePath: "string",
    fetch: "function",
    tokenAudience: "boolean",
    watchDefinition: "boolean",
  };
  for (const [name, type] of Object.entries(optional)) {
    if (config[name] !== undefined) {
      assert[type](config[name], name);
    }
  }
  for (const name of LIMITS) {
    const limit = config[name];
    if (limit !== undefined && !(Number.isInteger(limit) && limit > 0)) {
      throw new ValueAssertionError("a positive whole number", limit, name);
    }
  }
  checkRetention(config.changeRetention, "changeRetention");
  checkRetention(config.logRetention, "logRetention");
  if (config.durability !== undefined && !["process", "full"].includes(config.durability)) {
    throw new ValueAssertionError('"process" or "full"', config.durability, "durability");
  }
}

/**
 * Converts the option `metadata` to `{ inMemory, key }`. If `inMemory` is true, there is no
 * session file. If `key` is set, it encrypts the session file.
 */
function encryptionKey(metadata) {
  if (metadata === undefined || metadata === null) {
    return { inMemory: false };
  }
  assert.object(metadata, "metadata");
  const modes = Object.values(MetadataMode);
  if (!modes.includes(metadata.mode)) {
    throw new ValueAssertionError(`one of ${modes.join(", ")}`, metadata.mode, "metadata.mode");
  }
  if (metadata.mode !== MetadataMode.Encryption) {
    return { inMemory: metadata.mode !== MetadataMode.NoEncryption };
  }
  const key = metadata.encryptionKey;
  if (key === undefined || key === null) {
    throw new Error("encryptionKey is required");
  }
  const isView = ArrayBuffer.isView(key);
  if (!isView && Object.prototype.toString.call(key) !== "[object ArrayBuffer]") {
    throw new TypeAssertionError("an ArrayBuffer", key, "metadata.encryptionKey");
  }
  const bytes = isView ? Buffer.from(key.buffer, key.byteOffset, key.byteLength) : Buffer.from(key);
  if (bytes.length !== KEY_LENGTH) {
    throw new Error(`Expected 'metadata.encryptionKey' to have ${KEY_LENGTH} bytes, got ${bytes.length}`);
  }
  return { inMemory: false, key: bytes };
}

/**
 * Returns the path of the definition's directory, or undefined for the built-in development
 * definition.
 */
function definitionDirectory(config) {
  const named = setting(config, "definition", "USERKEEP_DEFINITION");
  if (named !== undefined) {
    return path.resolve(named);
  }
  const usual = path.resolve("userkeep");
  if (fs.statSync(usual, { throwIfNoEntry: false })?.isDirectory()) {
    return usual;
  }
  if (process.env.NODE_ENV === "production") {
    throw new Error(
      "There is no app definition: name its directory with the option `definition` or with USERKEEP_DEFINITION. " +
        "The built-in development definition is not used when NODE_ENV is 'production'",
    );
  }
  return undefined;
}

/**
 * Converts a store's address to the form of the addon: a file path, a connection string, or an
 * empty string for a store in memory. `name` is the name of the setting in error messages.
 */
function storeAddress(store, name) {
  if (store === "memory:") {
    return "";
  }
  if (store.startsWith("sqlite:") && store.length > "sqlite:".length) {
    return path.resolve(store.slice("sqlite:".length));
  }
  if (/^mongodb(\+srv)?:\/\//.test(store)) {
    return store;
  }
  throw new Error(
    `${name} must be "sqlite:PATH", "memory:", "mongodb://…" or "mongodb+srv://…", got ${JSON.stringify(redact(store))}`,
  );
}

/** Matches each option of a connection string that contains a secret, with its value. */
const SECRET_OPTIONS = /([?&;][^=&]*(?:password|secret|token|authmechanismproperties)[^=&]*=)[^&]*/gi;

/**
 * Replaces the secrets in an address with `***`: the text before the last `@`, and the values of
 * secret options. Without an `@`, replaces all text after the scheme if it may contain a password.
 */
function redact(address) {
  const [, scheme, rest] = /^([a-z][a-z0-9+.-]*:\/{0,2})?(.*)$/is.exec(address);
  const end = rest.lastIndexOf("@");
  const isUnclear = end === -1 && /^[^/?]*:(?!\d{1,5}(?:[,/?]|$))/.test(rest);
  const shown = end === -1 ? rest : `***${rest.slice(end)}`;
  return `${scheme ?? ""}${isUnclear ? "***" : shown}`.replace(SECRET_OPTIONS, "$1***");
}

/** Returns a store's address for messages, without the secrets of a connection string. */
function withoutPassword(store) {
  return /^mongodb(\+srv)?:/i.test(store) ? redact(store) : store;
}

/**
 * Returns a value for messages. Redacts a value that looks like the address of a store, which a
 * user can enter in the wrong place by mistake.
 */
function withoutSecrets(value) {
  return /^\s*mongodb(\+srv)?:|:\/\/|:.*@/is.test(value) ? redact(value) : value;
}

/** Redacts the user, the password and other secrets of each connection string in a text. */
function withoutPasswords(text) {
  // A password can contain any character, so it ends at the last `@` of the line.
  return text
    .replace(/(mongodb(?:\+srv)?:\/+).*@/gi, "$1***@")
    .replace(/mongodb(?:\+srv)?:\/[^\s'"]*/gi, (address) => address.replace(SECRET_OPTIONS, "$1***"));
}

/** Returns the addresses of data sources, from the option and from environment variables. */
function dataSources(config) {
  const named = {};
  if (config.dataSources !== undefined) {
    assert.object(config.dataSources, "dataSources");
    for (const [service, store] of Object.entries(config.dataSources)) {
      const name = `dataSources[${JSON.stringify(service)}]`;
      named[service] = storeAddress(assert.string(store, name), name);
    }
  }
  const variables = {};
  for (const [variable, store] of Object.entries(process.env)) {
    if (variable.startsWith(DATA_SOURCE_VARIABLE) && store !== "") {
      variables[variable] = storeAddress(store, variable);
    }
  }
  return { dataSources: named, dataSourceVariables: variables };
}

/** Returns the environment variables that contain secrets. */
const secretVariables = () =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith(SECRET_VARIABLE)));

/** Returns the secrets of the option and of environment variables. Errors do not show them. */
function secrets(config) {
  const given = config.secrets === undefined ? {} : assert.object(config.secrets, "secrets");
  for (const [name, text] of Object.entries(given)) {
    if (typeof text !== "string") {
      throw new Error(`Expected 'secrets[${JSON.stringify(name)}]' to be a string, got a ${typeof text}`);
    }
  }
  return { secrets: given, secretVariables: secretVariables() };
}

/** Returns the options of functions in the addon's form. */
const threadOptions = ({ threads, timeLimit, memoryLimit }) => ({
  functionThreads: threads,
  functionTimeLimit: timeLimit,
  functionMemoryLimit: memoryLimit,
});

/** Returns the certificates of `NODE_EXTRA_CA_CERTS`. The client trusts them, as Node does. */
function extraCertificates() {
  const file = process.env.NODE_EXTRA_CA_CERTS;
  if (!file) {
    return undefined;
  }
  try {
    return fs.readFileSync(file);
  } catch (cause) {
    throw new Error(`The certificates of NODE_EXTRA_CA_CERTS cannot be read: ${cause.message}`, { cause });
  }
}

/** Returns the native settings of an app with a remote backend. */
function remote(config, baseUrl) {
  const backends = Object.keys(config).filter((name) => BACKEND_KEYS.has(name) && config[name] !== undefined);
  if (config.baseUrl !== undefined && backends.length > 0) {
    throw new Error(`'baseUrl' is the URL of a remote backend and cannot be used with '${backends[0]}'`);
  }
  return { baseUrl: baseUrl.replace(/\/+$/, ""), timeout: config.timeout, certificates: extraCertificates() };
}

/** Returns the native settings of an app with a backend in this process. */
function embedded(config, ownFile, isStoreAlone) {
  const store = setting(config, "store", "USERKEEP_STORE");
  const limit = (name) => config[name] && Math.min(config[name], MAX_LIMIT);
  return {
    definition: isStoreAlone ? undefined : definitionDirectory(config),
    store: store === undefined ? ownFile("sqlite") : storeAddress(store, "The store"),
    ...(isStoreAlone ? {} : dataSources(config)),
    maxDocuments: limit("maxDocuments"),
    maxAnswerBytes: limit("maxAnswerBytes"),
    maxTime: limit("maxTimeMS"),
    maxWriteDocuments: limit("maxWriteDocuments"),
    tokenAudience: config.tokenAudience,
    ...(isStoreAlone ? {} : secrets(config)),
    ...threadOptions(functionOptions(config.functions)),
    durable: config.durability === "full",
    changeRetentionSeconds: config.changeRetention?.seconds,
    changeRetentionBytes: config.changeRetention?.bytes,
    logRetentionSeconds: config.logRetention?.seconds,
    logRetentionBytes: config.logRetention?.bytes,
    ...(isStoreAlone ? {} : { watchDefinition: config.watchDefinition }),
  };
}

/**
 * Resolves the settings of an app. The configuration has priority over the environment, and the
 * environment has priority over the defaults.
 *
 * `operator` is true for `openBackend()` and `serve()`, which run a backend in this process.
 * `isStoreAlone` is true to open only the store, without an app definition. In the result,
 * `native` has the settings for the addon, `shared` identifies the apps that share one backend,
 * and `unknown` lists the unknown keys.
 */
function resolveConfiguration(config, { operator = false, isStoreAlone = false } = {}) {
  checkTypes(config);
  if (operator && config.baseUrl !== undefined) {
    throw new Error("'baseUrl' is the URL of a remote backend, but openBackend() and serve() run one in this process");
  }
  const directory = path.resolve(config.baseFilePath ?? ".", ".userkeep");
  const ownFile = (extension) => path.join(directory, `${encodeURIComponent(config.id)}.${extension}`);
  // The options 'store' and 'definition' have priority over USERKEEP_BASE_URL.
  const names = (option) => config[option] !== undefined;
  const isEmbedded = operator || (!names("baseUrl") && (names("store") || names("definition")));
  const baseUrl = isEmbedded ? undefined : setting(config, "baseUrl", "USERKEEP_BASE_URL");
  const { inMemory, key } = encryptionKey(config.metadata);
  const backend = baseUrl === undefined ? embedded(config, ownFile, isStoreAlone) : remote(config, baseUrl);
  const isInMemory = baseUrl === undefined && backend.store === "";
  const sessionFile = isInMemory || inMemory ? undefined : ownFile("session");
  const settings = JSON.stringify([backend, sessionFile, key?.toString("hex")]);
  // Apps with a remote backend and no session file share a core only if all settings are equal.
  const name = baseUrl === undefined || sessionFile ? config.id : JSON.stringify([config.id, settings]);
  return {
    native: { ...backend, appId: config.id, sessionFile, encryptionKey: key, operator },
    shared: isInMemory ? undefined : { name, settings },
    functions: baseUrl === undefined ? functionOptions(config.functions) : undefined,
    unknown: [
      ...Object.keys(config).filter((name) => !KNOWN_KEYS.has(name)),
      ...unknownFunctionOptions(config.functions),
    ],
  };
}

module.exports = {
  KNOWN_KEYS,
  MetadataMode,
  resolveConfiguration,
  secretVariables,
  storeAddress,
  withoutPassword,
  withoutPasswords,
  withoutSecrets,
};
