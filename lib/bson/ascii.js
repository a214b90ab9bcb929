"use strict";

/** Texts up to this length are put together here: longer ones would be made of pieces, and are faster in Node's own decoder. */
const SHORT = 12;

/** The text between two positions of a buffer, which are UTF-8. */
function textBetween(buffer, start, end) {
  if (end - start > SHORT) {
    return buffer.utf8Slice(start, end);
  }
  let text = "";
  let index = start;
  for (; index + 4 <= end; index += 4) {
    const one = buffer[index];
    const two = buffer[index + 1];
    const three = buffer[index + 2];
    const four = buffer[index + 3];
    if ((one | two | three | four) > 0x7f) {
      return buffer.utf8Slice(start, end);
    }
    text += String.fromCharCode(one, two, three, four);
  }
  for (; index < end; index++) {
    const code = buffer[index];
    if (code > 0x7f) {
      return buffer.utf8Slice(start, end);
    }
    text += String.fromCharCode(code);
  }
  return text;
}

module.exports = { textBetween };
