// Builds this machine's addon for publication, and packs it, the main package and the alias:
// `npm run package [-- --to DIR]`. The default directory is `packages`.
import fs from "node:fs";
import { parseArgs } from "node:util";
import { buildAddon, machineDirectories, textsWithDirectories, withoutMachineDirectories } from "./addon.mjs";
import { packAlias, packMain, packPlatform } from "./pack.mjs";

/** Maximum size of a published tarball with an addon, in bytes. */
const MAX_SIZE = 8e6;

const { values: options } = parseArgs({ options: { to: { type: "string", default: "packages" } } });

const addon = buildAddon("dist", withoutMachineDirectories());
const texts = textsWithDirectories(fs.readFileSync(addon), machineDirectories().keys());
if (texts.length > 0) {
  throw new Error(`the addon contains directories of this machine:\n${texts.join("\n")}`);
}
const platform = packPlatform(options.to, addon);
if (platform.size > MAX_SIZE) {
  throw new Error(`${platform.file} has ${platform.size} bytes; at most ${MAX_SIZE} are allowed`);
}
for (const { file, size } of [platform, packMain(options.to), packAlias(options.to)]) {
  console.log(`${file}: ${(size / 1e6).toFixed(2)} MB`);
}
