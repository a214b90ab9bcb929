"use strict";

const { assert, TypeAssertionError } = require("./assert.js");
const { openNative } = require("./backend.js");
const { bridge, native, result } = require("./bridge.js");

const MAX_PORT = 65535;

function checkServer({ host, port = 3000, publicUrl, maxBodySize }) {
  if (!Number.isInteger(port) || port < 0 || port > MAX_PORT) {
    throw new TypeAssertionError(`a port from 0 to ${MAX_PORT}`, port, "port");
  }
  if (maxBodySize !== undefined && !(Number.isInteger(maxBodySize) && maxBodySize > 0)) {
    throw new TypeAssertionError("a positive whole number of bytes", maxBodySize, "maxBodySize");
  }
  if (host !== undefined) {
    assert.string(host, "host");
  }
  if (publicUrl !== undefined && !/^https?:\/\//.test(assert.string(publicUrl, "publicUrl"))) {
    throw new Error(`Expected 'publicUrl' to begin with http:// or https://, got ${JSON.stringify(publicUrl)}`);
  }
  return { host, port, publicUrl, maxBody: maxBodySize };
}

/**
 * Offers a backend over HTTP, as `realm-web` and the SDKs expect it.
 *
 * Resolves when it listens. The server keeps the process alive until it is closed.
 */
async function serve(options) {
  const { app, host, port, publicUrl, maxBodySize, ...backend } = assert.object(options, "options");
  const server = checkServer({ host, port, publicUrl, maxBodySize });
  if (app !== undefined) {
    backend.id = assert.string(app, "app");
  }
  const { handle, id, origin, reported, log, store, close: release } = openNative(backend, "app");
  try {
    const { url } = await result(native.listen(bridge, handle, server));
    for (const problem of reported) {
      log("warn", problem);
    }
    log("info", `serving app '${id}', ${origin}, on the store ${store}, at ${url}`);
    result(native.serving(bridge, handle));
    let closing;
    const close = async () => {
      closing ??= Promise.resolve(result(native.stopServing(bridge, handle))).then(release);
      return closing;
    };
    return { url, close };
  } catch (error) {
    await release();
    throw error;
  }
}

module.exports = { serve };
