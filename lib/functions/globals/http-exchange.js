"use strict";

const http = require("node:http");
const https = require("node:https");
const { once } = require("node:events");
const { Writable } = require("node:stream");
const { pipeline } = require("node:stream/promises");
const { urlToHttpOptions } = require("node:url");
const zlib = require("node:zlib");
const { httpError } = require("./errors.js");

const ENCODINGS = "gzip, deflate, br";
/** The maximum number of encodings of one body. Each needs memory of its own. */
const MOST_ENCODINGS = 3;
const FIRST_SIZE = 16 * 1024;

/**
 * The bytes of a body. They are copied, because a server that sends single bytes would otherwise
 * fill the memory with chunks.
 */
class Body extends Writable {
  #bytes = Buffer.alloc(0);
  #size = 0;
  #limit;

  constructor(limit) {
    super();
    this.#limit = limit;
  }

  _write(chunk, _encoding, done) {
    const size = this.#size + chunk.length;
    if (size > this.#limit) {
      done(httpError(`the body of the response is larger than ${this.#limit} bytes`));
      return;
    }
    if (size > this.#bytes.length) {
      const larger = Buffer.alloc(Math.min(this.#limit, Math.max(size, this.#bytes.length * 2, FIRST_SIZE)));
      this.#bytes.copy(larger, 0, 0, this.#size);
      this.#bytes = larger;
    }
    chunk.copy(this.#bytes, this.#size);
    this.#size = size;
    done();
  }

  get bytes() {
    return this.#bytes.subarray(0, this.#size);
  }
}

/** Returns a response's first byte and leaves it in the stream. Undefined if there is none. */
async function firstByte(response) {
  if (response.readableLength === 0 && !response.readableEnded && !response.destroyed) {
    await once(response, "readable");
  }
  const first = response.read(1);
  if (first === null) {
    return undefined;
  }
  response.unshift(first);
  return first[0];
}

const DECODERS = {
  gzip: zlib.createGunzip,
  "x-gzip": zlib.createGunzip,
  deflate: zlib.createInflate,
  br: zlib.createBrotliDecompress,
};

/**
 * Creates the decoders of a body. Some servers send `deflate` without zlib's header, which the
 * first byte shows. A body without bytes needs no decoder.
 */
async function decodersFor(encodings, response) {
  const first = encodings.length > 0 ? await firstByte(response) : undefined;
  if (first === undefined) {
    return [];
  }
  const isRaw = encodings[0] === "deflate" && (first & 0x0f) !== 8;
  return encodings.map((encoding, index) => (index === 0 && isRaw ? zlib.createInflateRaw() : DECODERS[encoding]()));
}

/** Returns the encodings of a response, the outermost first. Empty if one is not known. */
function encodingsOf({ headers, statusCode }, method) {
  const names = (headers["content-encoding"] ?? "").toLowerCase().split(",");
  const encodings = names.map((name) => name.trim()).filter((name) => name !== "" && name !== "identity");
  const hasBody = method !== "HEAD" && statusCode !== 204 && statusCode !== 304 && headers["content-length"] !== "0";
  const areKnown = encodings.every((name) => Object.hasOwn(DECODERS, name));
  return hasBody && areKnown ? encodings.reverse() : [];
}

async function readBody(response, encodings, limit) {
  if (encodings.length > MOST_ENCODINGS) {
    throw httpError(`the body of the response has more than ${MOST_ENCODINGS} encodings`);
  }
  const body = new Body(limit);
  const decoders = await decodersFor(encodings, response);
  await pipeline(response, ...decoders, body);
  return body.bytes;
}

/** Reads a response: `{ statusCode, statusMessage, rawHeaders, isDecoded, body }`. */
async function receive(response, method, { bodySize, skipsBody }) {
  // After an abort, the stream reports an error while nothing reads it.
  response.on("error", () => {});
  const { statusCode, statusMessage, rawHeaders } = response;
  const head = { statusCode, statusMessage, rawHeaders };
  if (skipsBody(response)) {
    return { ...head, isDecoded: false, body: Buffer.alloc(0) };
  }
  const encodings = encodingsOf(response, method);
  const body = await readBody(response, encodings, bodySize);
  return { ...head, isDecoded: encodings.length > 0, body };
}

function optionsFor({ method, url, headers, body }) {
  const sent = { "Accept-Encoding": ENCODINGS, "User-Agent": "Userkeep" };
  for (const [key, [name, value]] of headers) {
    const preset = Object.keys(sent).find((other) => other.toLowerCase() === key);
    sent[preset ?? name] = value;
  }
  if (body !== undefined) {
    sent["Content-Length"] = body.length;
  }
  // Without an agent, the connection is closed after the response and keeps no process alive.
  return { ...urlToHttpOptions(url), method, headers: sent, agent: false, insecureHTTPParser: false };
}

/**
 * Sends one request and reads the response.
 *
 * @param request `{ method, url, headers, body? }`
 * @param settings `{ signal, bodySize, skipsBody(response) }`
 */
function exchange(request, settings) {
  return new Promise((resolve, reject) => {
    const { request: send } = request.url.protocol === "https:" ? https : http;
    const sent = send({ ...optionsFor(request), signal: settings.signal });
    let isAnswered = false;
    sent.on("error", reject);
    sent.on("close", () => {
      if (!isAnswered) {
        reject(httpError("the server has closed the connection without an answer"));
      }
    });
    sent.on("response", (response) => {
      isAnswered = true;
      receive(response, request.method, settings)
        .finally(() => sent.destroy())
        .then(resolve, reject);
    });
    sent.end(request.body);
  });
}

module.exports = { exchange };
