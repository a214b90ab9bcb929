// Builds the addon for this machine, and copies it to `native/`, where `lib/native.js` finds it in
// a checkout.
import { spawnSync } from "node:child_process";
import fs from "node:fs";

// An installed package has nothing to build: the addon comes in a separate package.
if (fs.existsSync("Cargo.toml")) {
  if (spawnSync("cargo", ["--version"]).status !== 0) {
    console.error("Building Userkeep needs Rust (cargo was not found): https://www.rust-lang.org/tools/install");
    process.exit(1);
  }
  const { addonFile, buildAddon } = await import("./addon.mjs");
  const library = buildAddon("release");
  fs.mkdirSync("native", { recursive: true });
  // Replaces the file instead of overwriting it, so that processes can still use the old addon.
  fs.copyFileSync(library, `native/${addonFile}.new`);
  fs.renameSync(`native/${addonFile}.new`, `native/${addonFile}`);
}
