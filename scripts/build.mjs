// Builds the addon for this machine, and puts it where `lib/native.js` looks first. `--target` is named so that cargo's
// other commands find what this one built.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import { hostTriple, run } from "./run.mjs";

// In a package that was installed there is nothing to build: the addon comes in a package of its own.
if (fs.existsSync("Cargo.toml")) {
  if (spawnSync("cargo", ["--version"]).status !== 0) {
    console.error("Building Userkeep needs Rust (cargo was not found): https://www.rust-lang.org/tools/install");
    process.exit(1);
  }
  const triple = hostTriple();
  run("cargo", ["build", "--release", "--target", triple, "--package", "userkeep"]);
  const library = { darwin: "libuserkeep.dylib", win32: "userkeep.dll" }[process.platform] ?? "libuserkeep.so";
  const { addonFile } = createRequire(import.meta.url)("../lib/platform.js");
  fs.mkdirSync("native", { recursive: true });
  // Replaced and not overwritten: a process that has the old one loaded goes on with it.
  fs.copyFileSync(`target/${triple}/release/${library}`, `native/${addonFile}.new`);
  fs.renameSync(`native/${addonFile}.new`, `native/${addonFile}`);
}
