"use strict";

const os = require("node:os");
const { assert, ValueAssertionError } = require("./assert.js");
const { openNative } = require("./backend.js");
const { administer } = require("./bridge.js");
const { withoutSecrets } = require("./configuration.js");
const { MOST_THREADS } = require("./functions/options.js");

const MAX_PORT = 65535;
const MAX_UINT32 = 2 ** 32 - 1;

/** The advice for a definition without `allowed_request_origins`. */
const ANY_ORIGIN =
  "the definition has no allowed_request_origins, so pages of any origin may make requests: list those of the app in root_config.json";

function checkPort(port, name) {
  if (!Number.isInteger(port) || port < 0 || port > MAX_PORT) {
    throw new ValueAssertionError(`a port from 0 to ${MAX_PORT}`, port, name);
  }
  // Without the sign of -0, which is not an integer in BSON.
  return port + 0;
}

function checkPositive(value, name) {
  if (!Number.isInteger(value) || value <= 0 || value > MAX_UINT32) {
    throw new ValueAssertionError("a positive whole number", value, name);
  }
  return value;
}

function optional(check, value, name) {
  return value === undefined ? undefined : check(value, name);
}

/** Checks the files of a certificate and its key. */
function tlsFiles(certificate, key) {
  return { certificate: assert.string(certificate, "tlsCert"), key: assert.string(key, "tlsKey") };
}

/** Checks one network or a list of networks. Returns a list. */
function networks(value, name) {
  const all = value === undefined ? [] : [value].flat();
  for (const network of all) {
    assert.string(network, name);
  }
  return all;
}

/** Splits the options into those of the listener, for the addon, and those of the backend. */
function readOptions(options) {
  const { host, port = 3000, publicUrl, maxBodySize, tlsCert, tlsKey, trustProxy, unlimited, ...more } = options;
  const { metricsHost = "127.0.0.1", metricsPort, clientTimeout, ...rest } = more;
  if (publicUrl !== undefined && !/^https?:\/\//.test(assert.string(publicUrl, "publicUrl"))) {
    throw new Error(
      `Expected 'publicUrl' to begin with http:// or https://, got ${JSON.stringify(withoutSecrets(publicUrl))}`,
    );
  }
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new Error("TLS needs both 'tlsCert' and 'tlsKey', the files of the certificate and its key");
  }
  const operatorHost = assert.string(metricsHost, "metricsHost");
  const listen = {
    host: optional(assert.string, host, "host"),
    port: checkPort(port, "port"),
    publicUrl,
    maxBody: optional(checkPositive, maxBodySize, "maxBodySize"),
    clientTimeout: optional(checkPositive, clientTimeout, "clientTimeout"),
    tls: optional(tlsFiles, tlsCert, tlsKey),
    trustedProxies: networks(trustProxy, "trustProxy"),
    unlimited: networks(unlimited, "unlimited"),
    metrics: metricsPort === undefined ? undefined : [operatorHost, checkPort(metricsPort, "metricsPort")],
  };
  return { listen, rest };
}

/** Returns the options of functions with the usual number of threads of a server: one per core. */
function withThreads(functions = {}) {
  const { threads = Math.min(os.availableParallelism(), MOST_THREADS) } = assert.object(functions, "functions");
  return { ...functions, threads };
}

/**
 * Serves a backend over HTTP with the API that `realm-web` and the SDKs expect.
 *
 * Resolves when it listens. The server keeps the process alive until it is closed.
 */
async function serve(options) {
  const { listen, rest } = readOptions(assert.object(options, "options"));
  const { app, ...more } = rest;
  const backend = { ...more, functions: withThreads(more.functions) };
  if (app !== undefined) {
    backend.id = assert.string(app, "app");
  }
  const opened = openNative(backend, "app");
  const { id, log, store, reportDefinition, close: release } = opened;
  const { origin, allowsAnyOrigin } = opened.native;
  try {
    const { url, metricsUrl } = await administer(opened.native, "listen", { options: listen });
    reportDefinition();
    if (allowsAnyOrigin) {
      log("warn", ANY_ORIGIN);
    }
    log("info", `serving app '${id}', ${origin}, on the store ${store}, at ${url}`);
    if (metricsUrl) {
      log("info", `serving ${metricsUrl}/healthz and ${metricsUrl}/metrics for the operator`);
    }
    administer(opened.native, "serving");
    let closing;
    const close = async () => {
      closing ??= administer(opened.native, "stopServing").then(release);
      return closing;
    };
    return { url, metricsUrl, close };
  } catch (error) {
    await release();
    throw error;
  }
}

module.exports = { ANY_ORIGIN, serve };
