// Builds the addon for this machine. `target` is named so that cargo's other commands find what this one built.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { hostTriple, run } from "./run.mjs";

// In a package that was installed, there is nothing to build: the addon comes in a package of its own.
if (existsSync("Cargo.toml")) {
  if (spawnSync("cargo", ["--version"]).status !== 0) {
    console.error("Building Userkeep needs Rust (cargo was not found): https://www.rust-lang.org/tools/install");
    process.exit(1);
  }
  const napi = ["build", "--platform", "--release", "--target", hostTriple(), "--output-dir", "native"];
  run("npx", ["napi", ...napi, "--js", "index.js", "--dts", "binding.d.ts"]);
}
