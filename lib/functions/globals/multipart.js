"use strict";

const { randomBytes } = require("node:crypto");
const { bytesOf } = require("./binary.js");
const { textOf } = require("./extended.js");

const LINE_END = "\r\n";
const ESCAPES = { '"': "%22", "\r": "%0D", "\n": "%0A" };

/** Escapes a field's name as browsers do, so that it cannot end its header. */
const escapeName = (name) => name.replace(/["\r\n]/g, (character) => ESCAPES[character]);

/** The fields of a form: one for each item of an array. */
function* fieldsOf(form) {
  for (const [name, value] of Object.entries(form)) {
    for (const item of Array.isArray(value) ? value : [value]) {
      yield [name, item];
    }
  }
}

function partOf(boundary, name, value) {
  const bytes = bytesOf(value);
  const isText = bytes === undefined || typeof value === "string";
  const head = [
    `--${boundary}`,
    `Content-Disposition: form-data; name="${escapeName(name)}"`,
    ...(isText ? [] : ["Content-Type: application/octet-stream"]),
    "",
    "",
  ];
  return [Buffer.from(head.join(LINE_END)), bytes ?? Buffer.from(textOf(value)), Buffer.from(LINE_END)];
}

/** Encodes a form as multipart/form-data: `{ body, contentType }`. */
function encodeForm(form) {
  // A value cannot contain the boundary, because it cannot know it.
  const boundary = randomBytes(24).toString("hex");
  const parts = [...fieldsOf(form)].flatMap(([name, value]) => partOf(boundary, name, value));
  const body = Buffer.concat([...parts, Buffer.from(`--${boundary}--${LINE_END}`)]);
  return { body, contentType: `multipart/form-data; boundary=${boundary}` };
}

module.exports = { encodeForm };
