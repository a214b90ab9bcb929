// Checks the addon's dependencies against `deny.toml` without network access: licences, banned
// crates and sources. Also checks the licences of the npm package's dependencies. The last line is
// `N passed, N failed`.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const RULES = fs.readFileSync(path.join(ROOT, "deny.toml"), "utf8").replace(/#.*$/gm, "");

/** Returns the strings of an array in `deny.toml`. */
function strings(section, key) {
  const body = RULES.split(/^\[/m).find((part) => part.startsWith(`${section}]`)) ?? "";
  const array = new RegExp(`^${key} = \\[([^\\]]*)\\]`, "m").exec(body)?.[1] ?? "";
  return new Set([...array.matchAll(/"([^"]*)"/g)].map((match) => match[1]));
}

/**
 * Returns true if the allowed licences satisfy an SPDX expression: one alternative of `OR`, and
 * all parts of `AND`. The slash of older manifests means `OR`.
 */
export function isAllowed(expression, allowed) {
  const tokens = expression.replaceAll("/", " OR ").match(/[()]|[^\s()]+/g) ?? [];
  let at = 0;
  const either = () => {
    let met = both();
    while (tokens[at] === "OR") {
      at += 1;
      met = both() || met;
    }
    return met;
  };
  const both = () => {
    let met = one();
    while (tokens[at] === "AND") {
      at += 1;
      met = one() && met;
    }
    return met;
  };
  const one = () => {
    if (tokens[at] === "(") {
      at += 1;
      const met = either();
      at += 1;
      return met;
    }
    let licence = tokens[at] ?? "";
    at += 1;
    if (tokens[at] === "WITH") {
      licence += ` WITH ${tokens[at + 1]}`;
      at += 2;
    }
    return allowed.has(licence);
  };
  return either() && at === tokens.length;
}

const allowed = strings("licenses", "allow");
const banned = strings("bans", "deny");
const { stdout, status, stderr } = spawnSync("cargo", ["metadata", "--format-version", "1", "--locked", "--offline"], {
  cwd: ROOT,
  encoding: "utf8",
  maxBuffer: 64 * 1024 * 1024,
});
if (status !== 0) {
  console.error(stderr);
  process.exit(1);
}

let passed = 0;
const faults = [];
function verify(isFine, why) {
  if (isFine) {
    passed += 1;
  } else {
    faults.push(why);
  }
}
const { packages, workspace_members: members, resolve } = JSON.parse(stdout);
const nodes = new Map(resolve.nodes.map((node) => [node.id, node]));
/** The packages that a target builds. The lock file also contains those of disabled features. */
const used = new Set(members);
for (const id of used) {
  for (const { pkg } of nodes.get(id).deps) {
    used.add(pkg);
  }
}
for (const { id, name, version, license, source } of packages.filter(({ id }) => used.has(id))) {
  const isOwn = members.includes(id);
  verify(isAllowed(license ?? "", allowed), `${name} ${version}: the licence '${license}' is not allowed in deny.toml`);
  verify(!banned.has(name), `${name} ${version} is banned in deny.toml`);
  verify(isOwn || source?.startsWith("registry+"), `${name} ${version} does not come from a registry`);
}
const lock = JSON.parse(fs.readFileSync(path.join(ROOT, "package-lock.json"), "utf8"));
for (const [place, { dev, license, link }] of Object.entries(lock.packages)) {
  if (place && !dev && !link) {
    verify(isAllowed(license ?? "", allowed), `${place}: the licence '${license}' is not allowed in deny.toml`);
  }
}
for (const fault of faults) {
  console.log(fault);
}
console.log(`${passed} passed, ${faults.length} failed`);
process.exitCode = faults.length > 0 ? 1 : 0;
