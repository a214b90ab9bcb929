// Builds the addon for this machine, and puts it where `lib/native.js` looks in a checkout.
import { spawnSync } from "node:child_process";
import fs from "node:fs";

// In a package that was installed there is nothing to build: the addon comes in a package of its own.
if (fs.existsSync("Cargo.toml")) {
  if (spawnSync("cargo", ["--version"]).status !== 0) {
    console.error("Building Userkeep needs Rust (cargo was not found): https://www.rust-lang.org/tools/install");
    process.exit(1);
  }
  const { addonFile, buildAddon } = await import("./addon.mjs");
  const library = buildAddon("release");
  fs.mkdirSync("native", { recursive: true });
  // Replaced and not overwritten: a process that has the old one loaded goes on with it.
  fs.copyFileSync(library, `native/${addonFile}.new`);
  fs.renameSync(`native/${addonFile}.new`, `native/${addonFile}`);
}
