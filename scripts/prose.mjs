// Checks how sources and documents read: `node scripts/prose.mjs [PATH …] [--shares]`. `docs/style.md` is the standard.
//
// Prints each line that breaks a rule and exits with 1 if there is one. Without paths, it checks every file of the repository.
// `--shares` prints the share of doc lines in the public modules of each crate.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const SOURCES = new Set([".rs", ".js", ".mjs", ".cjs", ".ts", ".mts"]);
/** The standard quotes what it forbids, and this file spells it. */
const EXEMPT = new Set(["docs/style.md", "scripts/prose.mjs"]);
/** The column before which a line of prose ends. */
const COLUMN = 100;
/** The least share of doc lines in the non-blank lines of a crate's public modules. */
const LEAST_SHARE = 0.15;

/** Words and phrases that have no place in a comment, a message or a document. */
const PHRASES = [
  /\b(nobody|somebody|anybody|no ?one else|someone|anyone|whoever|whomever|whosoever)\b/i,
  /\banew\b/i,
  /\bso (many|much)\b(?! (that|as)\b)/i,
  /\blet(s|ting)? go of\b/i,
  /\b(is|are|was|were|be|been|being|gets?) (told|said)\b/i,
  /\b(hears?|heard) of\b/i,
  /\bfor the sake of\b/i,
  /\b(come|comes|came) to (know|pass)\b/i,
  /\bhas to do with\b/i,
  /\bis not for (the )?(others?|them)\b/i,
  /\bwhat (is|was|are|were|has|have|had|can|could|may|might|must) (not )?(be )?[a-z]+ed\b/i,
  /\bwhere (it|there|they|that|this|one|none|no|nothing) (is|are|was|were|has|have|had|can|could|does|do|may|must)\b/i,
];

/** Ways to begin a sentence that has no subject yet. Questions may. */
const BEGINNINGS =
  /^(What|Who|Whose|Whom|Whether|That(?! (is|would|means|way)\b)|Where(?!as)|How (?!to\b)|In how|Of (what|which|how|whom)|By what|To what|From what|With what|For what|So (much|many|far|long))\b/;

function trackedFiles(paths) {
  const { stdout } = spawnSync("git", ["ls-files", "--", ...paths], { cwd: ROOT, encoding: "utf8" });
  return stdout.split("\n").filter((file) => {
    const isProse = SOURCES.has(path.extname(file)) || path.extname(file) === ".md";
    return isProse && !EXEMPT.has(file) && fs.existsSync(path.join(ROOT, file));
  });
}

/** The text of a comment line without its marks; null for code. */
function commentText(line) {
  const own = /^\s*(?:\/\/[/!]?|\/?\*\*?(?!\/)) ?(.*?)(?:\s*\*\/)?$/.exec(line);
  if (own) {
    return own[1];
  }
  const trailing = /^(?:[^"'`/]|\/(?!\/))*\/\/ (.*)$/.exec(line);
  return trailing ? trailing[1] : null;
}

/** The prose of a file as lines: `{ number, text, isComment, begins }`. */
function proseLines(file, lines) {
  const prose = [];
  let isFenced = false;
  let goesOn = false;
  for (const [index, line] of lines.entries()) {
    const text = file.endsWith(".md") ? line : commentText(line);
    if (text === null) {
      goesOn = false;
      continue;
    }
    const bare = text.trim();
    if (bare.startsWith("```")) {
      isFenced = !isFenced;
    }
    if (!isFenced && !bare.startsWith("```")) {
      const begins = !goesOn || bare === "" || /^([-*|#>]|\d+\.|@\w+)/.test(bare);
      prose.push({ number: index + 1, text: bare, begins });
      // A sentence goes on in the next line unless this one ends it.
      goesOn = bare !== "" && !/^[#|]/.test(bare) && !/[.:!?]["')`*_]*$/.test(bare);
    }
  }
  return prose;
}

/** The first sentences in a line: of the line itself if it begins one, and of what follows a full stop. */
function sentences({ text, begins }) {
  const cleaned = text
    .replace(/^(?:[-*>|]+|\d+\.|#+|@\w+(?: \{[^}]*\})?(?: `?\w+`?)? ?-?)\s*/, "")
    .replace(/^[*_`]+/, "");
  const parts = cleaned.split(/(?<=[.!:?]["')`*_]*)\s+(?=[A-Z*_])/);
  return (begins ? parts : parts.slice(1)).map((part) => part.replace(/^[*_]+/, ""));
}

function check(file) {
  const lines = fs.readFileSync(path.join(ROOT, file), "utf8").split("\n");
  const faults = [];
  const fault = (number, why) => faults.push(`${file}:${number}: ${why}: ${lines[number - 1].trim().slice(0, 120)}`);
  const prose = proseLines(file, lines);
  for (const line of prose) {
    for (const sentence of sentences(line)) {
      const beginning = BEGINNINGS.exec(sentence);
      if (beginning && !/\?["')`*_]*$/.test(sentence)) {
        fault(line.number, `a sentence begins with “${beginning[0]}”`);
      }
    }
    const isTable = line.text.startsWith("|");
    const isLink = /^\S*\s*<?https?:\/\/\S+$/.test(line.text) || /^\[[^\]]+\]: /.test(line.text);
    if (lines[line.number - 1].trimEnd().length >= COLUMN && !isTable && !isLink) {
      fault(line.number, `prose goes beyond column ${COLUMN - 1}`);
    }
  }
  // Phrases are looked for in code too: in messages, and in names of tests.
  const isMarkdown = file.endsWith(".md");
  const searched = isMarkdown ? prose : lines.map((text, index) => ({ number: index + 1, text }));
  for (const { number, text } of searched) {
    for (const phrase of PHRASES) {
      const found = phrase.exec(text);
      if (found) {
        fault(number, `“${found[0]}”`);
      }
    }
    const named = /\b(?:test|describe)(?:\.each\(.*\))?\(\s*["'`](what|who|whose|whether|nobody|where|that) /i.exec(
      text,
    );
    if (named) {
      fault(number, `a test's name begins with “${named[1]}”`);
    }
  }
  return faults;
}

/** Crates without an interface to document: their library serves only the programs beside it. */
const WITHOUT_INTERFACE = new Set(["testing"]);

/** The share of doc lines in the non-blank lines of a crate's public modules: those files that have something public, without tests. */
function docShare(crate) {
  let docs = 0;
  let all = 0;
  for (const file of trackedFiles([`crates/${crate}/src`])) {
    const source = fs.readFileSync(path.join(ROOT, file), "utf8");
    if (
      /(^|\/)tests(\/|\.rs$)/.test(file) ||
      !/^\s*pub (?:async |const |unsafe )?(?:fn|struct|enum|trait|type|const|use|mod)\b/m.test(source)
    ) {
      continue;
    }
    const lines = source
      .split(/^#\[cfg\(test\)\]/m)[0]
      .split("\n")
      .filter((line) => line.trim() !== "");
    docs += lines.filter((line) => /^\s*\/\/[/!]/.test(line)).length;
    all += lines.length;
  }
  return docs / all;
}

const { values, positionals } = parseArgs({ allowPositionals: true, options: { shares: { type: "boolean" } } });
const faults = trackedFiles(positionals).flatMap(check);
if (positionals.length === 0 || values.shares) {
  for (const crate of fs.readdirSync(path.join(ROOT, "crates"))) {
    const share = docShare(crate);
    if (values.shares) {
      console.log(`${crate}: ${(100 * share).toFixed(1)} % doc lines`);
    }
    if (share < LEAST_SHARE && !WITHOUT_INTERFACE.has(crate)) {
      faults.push(
        `crates/${crate}: ${(100 * share).toFixed(1)} % of the lines of public modules are doc lines, not ${100 * LEAST_SHARE} %`,
      );
    }
  }
}
for (const fault of faults) {
  console.log(fault);
}
console.log(`${faults.length} faults in prose`);
process.exitCode = faults.length > 0 ? 1 : 0;
