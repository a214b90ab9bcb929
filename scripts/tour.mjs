// Checks that the paths in the developers' documents exist: `node scripts/tour.mjs`.
//
// A path is a token in backticks that has a `/` and an extension, ends with `/`, or begins with a
// directory of the root; and a file name that stands alone in backticks. `*`, `**` and `<name>`
// match any name: one file must match. Paths that git ignores need not exist, because a build
// creates them. The last line is `N passed, N failed`.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const DOCUMENTS = ["docs/tour.md", "CONTRIBUTING.md"];
const FILE_NAME = /^[\w.-]+\.(rs|js|mjs|cjs|ts|mts|cts|md|toml|json|jsonl|txt)$/;
const TOP_LEVEL = new Set(fs.readdirSync(ROOT));

/** True if a token of a code span names a path in the repository. */
function isPath(token) {
  // URLs, paths of endpoints, and packages of npm.
  if (token.includes("://") || /^[/@]/.test(token)) {
    return false;
  }
  const hasExtension = /\/[^/]*\.\w+$/.test(token);
  return hasExtension || /\w\/$/.test(token) || (token.includes("/") && TOP_LEVEL.has(token.split("/")[0]));
}

/** Returns the paths in a document with the numbers of the lines that first name them. */
function pathsOf(document) {
  const paths = new Map();
  let isFenced = false;
  for (const [index, line] of fs.readFileSync(path.join(ROOT, document), "utf8").split("\n").entries()) {
    if (line.startsWith("```")) {
      isFenced = !isFenced;
    } else if (!isFenced) {
      for (const [, span] of line.matchAll(/`([^`]+)`/g)) {
        const named = FILE_NAME.test(span) ? [span] : span.split(/\s+/).filter(isPath);
        for (const name of named.filter((name) => !paths.has(name))) {
          paths.set(name, index + 1);
        }
      }
    }
  }
  return paths;
}

function git(...args) {
  return spawnSync("git", args, { cwd: ROOT, encoding: "utf8" });
}

/** True if a path exists, or a build creates it. */
function exists(name) {
  const pattern = name.replace(/<[^>]*>/g, "*");
  if (pattern.includes("*")) {
    // The second pattern matches directories, by their files.
    const patterns = [`:(glob)${pattern}`, `:(glob)${pattern.replace(/\/$/, "")}/**`];
    return git("ls-files", "--cached", "--others", "--exclude-standard", "--", ...patterns).stdout !== "";
  }
  return fs.existsSync(path.join(ROOT, name)) || git("check-ignore", "--quiet", "--", name).status === 0;
}

const counts = { passed: 0, failed: 0 };
for (const document of DOCUMENTS) {
  for (const [name, line] of pathsOf(document)) {
    const passed = exists(name);
    counts[passed ? "passed" : "failed"] += 1;
    if (!passed) {
      console.log(`${document}:${line}: there is no ${name}`);
    }
  }
}
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed || !counts.passed ? 1 : 0;
