"use strict";

const { isUtf8 } = require("node:buffer");
const { STATUS_CODES } = require("node:http");
const { toBinary } = require("./binary.js");

/** The headers that describe a body before it was decompressed. */
const OF_ENCODED_BODY = ["Content-Encoding", "Content-Length"];

/** Returns a header's name as Go writes it: `Content-Type`. */
const canonicalName = (name) => name.toLowerCase().replace(/(^|-)[a-z]/g, (letter) => letter.toUpperCase());

/** Decodes the bytes of a header's value, which Node reads as Latin-1. */
function decodeValue(value) {
  const bytes = Buffer.from(value, "latin1");
  return isUtf8(bytes) ? bytes.toString("utf8") : value;
}

/** Returns the headers of a response: values by names in canonical case. */
function headersOf({ rawHeaders }) {
  const headers = new Map();
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = canonicalName(rawHeaders[index]);
    const values = headers.get(name) ?? [];
    values.push(decodeValue(rawHeaders[index + 1]));
    headers.set(name, values);
  }
  return headers;
}

/** Returns the cookies that a response sets: values by name. */
function cookiesOf(headers) {
  const cookies = new Map();
  for (const header of headers.get("Set-Cookie") ?? []) {
    const [, name, value] = /^\s*([^=;]*?)\s*=\s*([^;]*?)\s*(?:;|$)/.exec(header) ?? [];
    if (name) {
      cookies.set(name, value.replace(/^"(.*)"$/, "$1"));
    }
  }
  return cookies;
}

function contentLengthOf(method, headers, body) {
  const [declared] = headers.get("Content-Length") ?? [];
  return method === "HEAD" && /^\d{1,15}$/.test(declared) ? Number(declared) : body.length;
}

/** Returns the result of a request for a function. */
function resultOf(method, response) {
  const { statusCode, statusMessage, isDecoded, body } = response;
  const headers = headersOf(response);
  if (isDecoded) {
    for (const name of OF_ENCODED_BODY) {
      headers.delete(name);
    }
  }
  const phrase = decodeValue(statusMessage) || STATUS_CODES[statusCode] || "";
  // `fromEntries` makes fields of all names, also of `__proto__`.
  return {
    status: `${statusCode} ${phrase}`.trim(),
    statusCode,
    contentLength: contentLengthOf(method, headers, body),
    headers: Object.fromEntries(headers),
    cookies: Object.fromEntries(cookiesOf(headers)),
    body: toBinary(body),
  };
}

module.exports = { cookiesOf, headersOf, resultOf };
