"use strict";

/** One token that can contain the marks of another: a comment, a text, or a regular expression. */
const TOKENS = new RegExp(
  [
    "(?<comment>//[^\\n]*|/\\*[^]*?\\*/)",
    '"(?:\\\\[^]|[^"\\\\\\n])*"',
    "'(?:\\\\[^]|[^'\\\\\\n])*'",
    "`(?:\\\\[^]|[^`\\\\])*`",
    // A slash begins a regular expression only if a value cannot end before it.
    "(?<=(?:^|[=(,:;!&|?{}[\\n]|\\breturn)\\s*)/(?![*/])(?:\\\\.|\\[(?:\\\\.|[^\\]\\\\\\n])*\\]|[^/\\\\\\n[])+/",
  ].join("|"),
  "g",
);

/** Replaces the comments of a source with spaces, so that offsets stay the same. */
const maskComments = (source) =>
  source.replace(TOKENS, (token, comment) => (comment === undefined ? token : token.replace(/[^\n]/g, " ")));

module.exports = { maskComments };
