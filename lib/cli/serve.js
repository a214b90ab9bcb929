"use strict";

const { camelCase } = require("./arguments.js");
const { APP, DEFINITION, STORE } = require("./options.js");
const { MOST_THREADS } = require("../functions/options.js");
const { LEVELS, toStandardError } = require("../logger.js");

const PORT = [0, 65535];
/** The range of a 32-bit limit in the addon. */
const POSITIVE = [1, 2 ** 32 - 1];

/** The range of an operation's limit. A value beyond 32 bits becomes the addon's maximum. */
const LIMIT = [1, Number.MAX_SAFE_INTEGER];

const summary = "serve an app's backend over HTTP";

const options = {
  definition: DEFINITION,
  store: STORE,
  app: APP,
  host: { type: "string", value: "HOST", help: "the address to listen on (default: 127.0.0.1)" },
  port: { type: "string", value: "PORT", number: PORT, help: "the port to listen on; 0 picks one (default: 3000)" },
  "public-url": {
    type: "string",
    value: "URL",
    help: "the URL that clients use (default: the bound address)",
  },
  "tls-cert": {
    type: "string",
    value: "FILE",
    help: "the TLS certificate and its chain, in PEM (default: no TLS)",
  },
  "tls-key": { type: "string", value: "FILE", help: "the key of the TLS certificate, in PEM (default: no TLS)" },
  "trust-proxy": {
    type: "string",
    value: "CIDR",
    multiple: true,
    help: "trust the X-Forwarded-For header of proxies in this network; may be repeated (default: none)",
  },
  unlimited: {
    type: "string",
    value: "CIDR",
    multiple: true,
    help: "exempt this network from the limits per address; may be repeated (default: none)",
  },
  "max-body-size": {
    type: "string",
    value: "N",
    number: POSITIVE,
    help: "reject a request with a valid token and a larger body as sent, in bytes (default: 64 MB)",
  },
  "client-timeout": {
    type: "string",
    value: "MS",
    number: POSITIVE,
    help: "close the connection of a client that is silent for longer, in milliseconds (default: 30000)",
  },
  "max-documents": {
    type: "string",
    value: "N",
    number: LIMIT,
    help: "reject a user's query that returns more documents (default: 50000)",
  },
  "max-answer-bytes": {
    type: "string",
    value: "N",
    number: LIMIT,
    help: "reject a user's query with a larger result, in bytes of BSON (default: 32 MB)",
  },
  "max-time": {
    type: "string",
    value: "MS",
    number: LIMIT,
    help: "stop an operation of a user that takes longer, in milliseconds (default: 10000)",
  },
  "max-write-documents": {
    type: "string",
    value: "N",
    number: LIMIT,
    help: "reject a user's write that changes more documents (default: 10000)",
  },
  "function-threads": {
    type: "string",
    value: "N",
    number: [0, MOST_THREADS],
    help: "threads that run functions; 0 runs them on the main thread, without limits (default: one per core)",
  },
  watch: {
    type: "boolean",
    help: "reload the definition when its files change, for development (default: off)",
  },
  "token-audience": {
    type: "boolean",
    help: "add the app's id to tokens as their audience (aud); not while an older version shares the store (default: off)",
  },
  "metrics-port": {
    type: "string",
    value: "PORT",
    number: PORT,
    help: "serve /healthz and /metrics for the operator on this port (default: off)",
  },
  "metrics-host": { type: "string", value: "HOST", help: "the address of that port (default: 127.0.0.1)" },
  log: {
    type: "string",
    value: "FORMAT",
    choices: ["text", "json"],
    help: "the log's format: text or json (default: text)",
  },
  "log-level": {
    type: "string",
    value: "LEVEL",
    choices: LEVELS,
    help: `the log's level: ${LEVELS.join(", ")} (default: info)`,
  },
};

/** The options of `serve()` that have another name on the command line. */
const NAMES_IN_JAVASCRIPT = { maxTime: "maxTimeMS", watch: "watchDefinition" };

/** Converts the names of the command's options to those of `serve()`. */
function toJavaScript(values) {
  const rename = (name) => NAMES_IN_JAVASCRIPT[camelCase(name)] ?? camelCase(name);
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [rename(name), value]));
}

async function run({ values }) {
  const { log: format, logLevel: level, functionThreads: threads, ...rest } = toJavaScript(values);
  const { serve } = require("../../index.js");
  const server = await serve({ ...rest, functions: { threads }, logger: toStandardError({ format, level }) });
  let ending = false;
  const end = async () => {
    // A second signal exits at once.
    if (ending) {
      process.exit(1);
    }
    ending = true;
    await server.close();
  };
  process.on("SIGTERM", end);
  process.on("SIGINT", end);
  process.stdout.write(`Listening at ${server.url}\n`);
}

module.exports = { summary, options, run };
