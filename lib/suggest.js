"use strict";

/** The maximum length of a word. The time is proportional to the product of both lengths. */
const MAX_LENGTH = 64;

/** Returns the number of insertions, deletions, replacements and swaps between two words. */
function distance(from, to) {
  const rows = [Array.from({ length: to.length + 1 }, (_, column) => column)];
  for (let row = 1; row <= from.length; row++) {
    rows.push([row]);
    for (let column = 1; column <= to.length; column++) {
      const isSame = from[row - 1] === to[column - 1];
      const isSwapped = row > 1 && column > 1 && from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      rows[row][column] = Math.min(
        rows[row - 1][column] + 1,
        rows[row][column - 1] + 1,
        rows[row - 1][column - 1] + (isSame ? 0 : 1),
        isSwapped ? rows[row - 2][column - 2] + 1 : Number.POSITIVE_INFINITY,
      );
    }
  }
  return rows[from.length][to.length];
}

/** Returns the candidate that `word` is most likely a misspelling of, or undefined. */
function closest(word, candidates) {
  if (word.length > MAX_LENGTH) {
    return undefined;
  }
  let best;
  // Allow one mistake in three letters.
  let limit = Math.max(1, Math.floor(word.length / 3));
  for (const candidate of candidates) {
    const mistakes = candidate.length > MAX_LENGTH ? limit + 1 : distance(word.toLowerCase(), candidate.toLowerCase());
    if (mistakes <= limit) {
      best = candidate;
      limit = mistakes - 1;
    }
  }
  return best;
}

/** Returns `; did you mean 'x'?` for the closest candidate, or an empty string. */
function didYouMean(word, candidates, show = (candidate) => `'${candidate}'`) {
  const candidate = closest(word, candidates);
  return candidate === undefined ? "" : `; did you mean ${show(candidate)}?`;
}

module.exports = { closest, didYouMean };
