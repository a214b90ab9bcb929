// Packs the packages for publication.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { platform as machine, ROOT } from "./addon.mjs";

const readManifest = (directory) => JSON.parse(fs.readFileSync(path.join(ROOT, directory, "package.json"), "utf8"));

/** The platforms that have a package. */
export const PLATFORMS = fs
  .readdirSync(path.join(ROOT, "npm"))
  .filter((name) => readManifest(`npm/${name}`).name === `@userkeep/native-${name}`);

/**
 * Returns the published manifest of the main package, which depends on the platform packages. The
 * manifest in the checkout does not: npm would look for them before they are published, and
 * `npm ci` fails if the lock file lacks them.
 */
export function publishedManifest() {
  const manifest = readManifest(".");
  const optionalDependencies = Object.fromEntries(
    PLATFORMS.map((name) => [`@userkeep/native-${name}`, manifest.version]),
  );
  return { ...manifest, optionalDependencies };
}

function npmPack(directory, ...options) {
  const output = execFileSync("npm", ["pack", "--json", "--ignore-scripts", ...options], {
    cwd: directory,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    shell: process.platform === "win32",
  });
  return JSON.parse(output)[0];
}

/**
 * Packs a copy of a package, and leaves the checkout unchanged. Returns the tarball's path and its
 * size in bytes.
 */
function packCopy(directory, destination, manifest, addon) {
  const copy = fs.mkdtempSync(path.join(os.tmpdir(), "userkeep-pack-"));
  try {
    for (const { path: name } of npmPack(path.join(ROOT, directory), "--dry-run").files) {
      fs.cpSync(path.join(ROOT, directory, name), path.join(copy, name));
    }
    fs.writeFileSync(path.join(copy, "package.json"), `${JSON.stringify(manifest, null, 2)}\n`);
    if (addon) {
      fs.copyFileSync(addon, path.join(copy, manifest.main));
    }
    fs.mkdirSync(destination, { recursive: true });
    const { filename, size } = npmPack(copy, "--pack-destination", path.resolve(destination));
    return { file: path.resolve(destination, filename), size };
  } finally {
    fs.rmSync(copy, { recursive: true });
  }
}

/** Packs the main package. */
export function packMain(destination) {
  return packCopy(".", destination, publishedManifest());
}

/** Packs a platform's package, with the addon at a path, or without an addon. */
export function packPlatform(destination, addon, platform = machine) {
  const directory = `npm/${platform}`;
  return packCopy(directory, destination, { ...readManifest(directory), version: readManifest(".").version }, addon);
}

/**
 * Packs the alias package, which depends on this version of the main one. Its own version, which
 * satisfies `^12`, is set by hand.
 */
export function packAlias(destination) {
  const [{ name, version }, alias] = [readManifest("."), readManifest("npm/realm")];
  return packCopy("npm/realm", destination, { ...alias, dependencies: { [name]: version } });
}
