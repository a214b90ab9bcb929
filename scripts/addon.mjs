// Builds the addon for this machine. Every cargo command passes `--target`, so that they share
// their build results and RUSTFLAGS do not apply to build scripts.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { hostTriple, run } from "./run.mjs";

export const ROOT = fileURLToPath(new URL("..", import.meta.url)).replace(/[/\\]$/, "");
export const { addonFile, platform } = createRequire(import.meta.url)("../lib/platform.js");

/** Builds the addon with a cargo profile; returns the library's path. */
export function buildAddon(profile, env = process.env) {
  const triple = hostTriple();
  run("cargo", ["build", "--profile", profile, "--target", triple, "--package", "userkeep"], { cwd: ROOT, env });
  const library = { darwin: "libuserkeep.dylib", win32: "userkeep.dll" }[process.platform] ?? "libuserkeep.so";
  return path.join(targetDirectory(), triple, profile, library);
}

function targetDirectory() {
  return path.resolve(ROOT, process.env.CARGO_TARGET_DIR ?? "target");
}

/**
 * Returns the directories of this machine that a compiler may write into an addon, as a map to
 * their replacements. Nested directories come last.
 */
export function machineDirectories() {
  const home = os.homedir();
  const cargo = path.resolve(process.env.CARGO_HOME ?? path.join(home, ".cargo"));
  const registry = path.join(cargo, "registry", "src");
  const { stdout: sysroot } = spawnSync("rustc", ["--print", "sysroot"], { cwd: ROOT, encoding: "utf8" });
  const sources = fs.existsSync(registry) ? fs.readdirSync(registry) : [];
  const directories = [
    [home, "home"],
    [ROOT, "userkeep"],
    [targetDirectory(), "target"],
    [sysroot.trim(), "rust"],
    [cargo, "cargo"],
    // Each registry has a directory named after its host.
    ...sources.map((name) => [path.join(registry, name), "crates"]),
  ];
  // The home directory may be the root of the file system, which must not be replaced.
  return new Map(directories.filter(([directory]) => path.dirname(directory) !== directory));
}

/**
 * Returns an environment in which the Rust and C compilers write no directory of this machine into
 * the addon. It rebuilds every crate, so only the profile `dist` uses it.
 */
export function withoutMachineDirectories() {
  const directories = [...machineDirectories()];
  const rust = directories.map(([from, to]) => `--remap-path-prefix=${from}=${to}`);
  const environment = {
    ...process.env,
    CARGO_ENCODED_RUSTFLAGS: [
      process.env.CARGO_ENCODED_RUSTFLAGS,
      process.env.RUSTFLAGS?.trim().replace(/\s+/g, "\x1f"),
    ]
      .filter(Boolean)
      .concat(rust)
      .join("\x1f"),
  };
  if (process.platform !== "win32") {
    const c = directories.map(([from, to]) => `-ffile-prefix-map=${from}=${to}`);
    environment.CFLAGS = [process.env.CFLAGS, ...c].filter(Boolean).join(" ");
    environment.CXXFLAGS = [process.env.CXXFLAGS, ...c].filter(Boolean).join(" ");
  }
  return environment;
}

/** Returns the strings in a binary that begin with one of these directories. */
export function textsWithDirectories(binary, directories) {
  const found = new Set();
  for (const directory of directories) {
    const start = `${directory}${path.sep}`;
    for (let at = binary.indexOf(start); at >= 0; at = binary.indexOf(start, at + start.length)) {
      found.add(/^[\x20-\x7e]*/.exec(binary.toString("latin1", at, at + 200))[0]);
    }
  }
  return [...found];
}
