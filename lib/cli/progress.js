"use strict";

const { escapeControls } = require("../logger.js");

/** The maximum width of the bar, in columns. */
const BAR = 30;

/** The number of columns of a terminal that does not report it. */
const COLUMNS = 80;

/** The time before the rate is shown, in seconds. Over a shorter time, it fluctuates. */
const FIRST_RATE = 1;

const CLEAR = "\r\x1b[K";

/** Formats a number with three digits and a prefix, such as `12.3k`. */
function short(number) {
  const prefixes = ["", "k", "M", "G", "T"];
  let rest = number;
  let index = 0;
  while (rest >= 999.5 && index < prefixes.length - 1) {
    rest /= 1000;
    index += 1;
  }
  return `${rest >= 99.5 || index === 0 ? Math.round(rest) : rest.toPrecision(3)}${prefixes[index]}`;
}

/** Formats a number of seconds, such as `1:05` or `2:00:07`. */
function duration(seconds) {
  const whole = Math.ceil(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60
    ? `${minutes}:${two(whole % 60)}`
    : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}

/** Returns the width of a text in columns. A non-ASCII character counts as two. */
function widthOf(text) {
  let columns = 0;
  for (const character of text) {
    columns += character < "\x7f" ? 1 : 2;
  }
  return columns;
}

/** Truncates a text to a number of columns. */
function truncate(text, columns) {
  let left = columns;
  let fitting = "";
  for (const character of text) {
    left -= widthOf(character);
    if (left < 0) {
      return fitting;
    }
    fitting += character;
  }
  return fitting;
}

/** Formats the progress of a task as a line that fits a terminal. `now` returns milliseconds. */
class ProgressLine {
  #stage;
  #began;
  #first;
  #reached;
  #now;

  constructor(now = () => performance.now()) {
    this.#now = now;
  }

  /** Returns the line for a terminal with a number of columns. */
  text({ stage, done, total }, columns) {
    const now = this.#now();
    if (stage !== this.#stage) {
      this.#stage = stage;
      [this.#began, this.#first, this.#reached] = [now, done, done];
    }
    // A stage reports 0 for a moment between two of its steps.
    this.#reached = Math.max(this.#reached, done);
    const seconds = (now - this.#began) / 1000;
    const rate = seconds >= FIRST_RATE ? (this.#reached - this.#first) / seconds : 0;
    const part = total > 0 ? Math.min(this.#reached / total, 1) : 0;

    const percent = total > 0 ? `${Math.floor(part * 100)}%`.padStart(4) : "    ";
    const speed = rate > 0 ? ` ${short(rate)}/s` : "";
    const left = rate > 0 && total > 0 ? ` ${duration(Math.max(total - this.#reached, 0) / rate)} left` : "";
    const name = escapeControls(stage);
    // The last column stays free: some terminals start a new line after it. The name gets at
    // least half of the other columns.
    const room = columns - 1 - percent.length - speed.length - left.length;
    const width = Math.min(BAR, room - 3 - Math.min(widthOf(name) + 1, Math.ceil(room / 2)));
    const bar = width > 0 ? `[${"#".repeat(Math.round(part * width)).padEnd(width, ".")}] ` : "";
    return truncate(`${bar}${percent}${speed}${left} ${name}`, columns - 1);
  }
}

/** Shows the progress of a task on the terminal, if standard error is a terminal. */
function showProgress(stream = process.stderr) {
  if (!stream.isTTY) {
    return { end: () => {} };
  }
  const line = new ProgressLine();
  return {
    onProgress: (progress) => stream.write(`${CLEAR}${line.text(progress, stream.columns || COLUMNS)}`),
    end: () => stream.write(CLEAR),
  };
}

module.exports = { ProgressLine, showProgress };
