// The requirements of the tests, apart from Node: how to check for them and how to install them.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { addonFile } from "./addon.mjs";
import { install as installTestServer, isInstalled as isTestServerInstalled } from "./test-server.mjs";

const BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/** Package managers, with the commands that install packages and update their lists. */
const MANAGERS = {
  "apt-get": { command: ["apt-get", "install", "-y", "--no-install-recommends"], update: ["apt-get", "update", "-qq"] },
  dnf: { command: ["dnf", "install", "-y"] },
  pacman: { command: ["pacman", "-S", "--noconfirm"] },
  apk: { command: ["apk", "add"] },
  brew: { command: ["brew", "install"] },
};

function runs(command, ...args) {
  const { error, status } = spawnSync(command, args, { stdio: "ignore" });
  return !error && status === 0;
}

/** Returns the path of a program in `PATH`, or undefined. */
function which(program) {
  const directories = (process.env.PATH ?? "").split(path.delimiter);
  return directories.map((directory) => path.join(directory, program)).find((file) => fs.existsSync(file));
}

/** Returns the path of Chromium for the browser tests, or undefined. */
export function browser() {
  const named = process.env.CHROMIUM_PATH;
  return named ? (fs.existsSync(named) ? named : undefined) : BROWSERS.map(which).find(Boolean);
}

function manager() {
  return Object.keys(MANAGERS).find(which);
}

/** Returns the command that installs a package of the operating system. */
function systemPackage(name) {
  const found = manager();
  const command = [...(MANAGERS[found]?.command ?? ["apt-get", "install", "-y"]), name];
  const needsRoot = found !== "brew" && process.getuid?.() !== 0;
  return needsRoot ? ["sudo", ...command] : command;
}

/** The requirements: name, `isMet`, and the command or the advice for installing it. */
const REQUIREMENTS = [
  {
    name: "Rust 1.89 or later",
    isMet: () => runs("cargo", "--version"),
    // The packages of some distributions are too old.
    advice: "see https://www.rust-lang.org/tools/install",
  },
  { name: "a C compiler", isMet: () => runs("cc", "--version"), command: () => systemPackage("gcc") },
  {
    name: "rustfmt",
    isMet: () => runs("cargo", "fmt", "--version"),
    command: () => ["rustup", "component", "add", "rustfmt"],
  },
  {
    name: "clippy",
    isMet: () => runs("cargo", "clippy", "--version"),
    command: () => ["rustup", "component", "add", "clippy"],
  },
  {
    name: "the packages of package-lock.json",
    isMet: () => fs.existsSync("node_modules/jest"),
    command: () => ["npm", "ci"],
  },
  { name: "the addon", isMet: () => fs.existsSync(`native/${addonFile}`), command: () => ["npm", "run", "prepare"] },
  {
    name: "Chromium (or CHROMIUM_PATH)",
    isMet: () => browser() !== undefined,
    command: () => systemPackage("chromium"),
  },
  { name: "openssl", isMet: () => runs("openssl", "version"), command: () => systemPackage("openssl") },
  {
    name: "cmake, which builds the MongoDB-compatible server",
    isMet: () => hasServer() || runs("cmake", "--version"),
    command: () => systemPackage("cmake"),
  },
  {
    name: "a MongoDB-compatible server (or MONGODB_URI)",
    isMet: hasServer,
    command: () => ["node", "scripts/test-server.mjs", "install"],
    install: installTestServer,
  },
];

function hasServer() {
  return Boolean(process.env.MONGODB_URI) || isTestServerInstalled();
}

/** Returns every requirement that is not met, with the command that installs it. */
export function missing() {
  const unmet = REQUIREMENTS.filter(({ isMet }) => !isMet());
  return unmet.map(({ name, advice, command }) => ({ name, how: advice ?? command().join(" ") }));
}

/** Installs the missing requirements. Returns those that are still missing. */
export function installMissing() {
  let isUpdated = false;
  for (const { name, isMet, command, install } of REQUIREMENTS) {
    if (isMet() || !command) {
      continue;
    }
    console.log(`installing ${name}`);
    if (install) {
      install();
      continue;
    }
    const [program, ...args] = command();
    const update = MANAGERS[manager()]?.update;
    if (update && args.includes("install") && !isUpdated) {
      spawnSync(program === "sudo" ? "sudo" : update[0], program === "sudo" ? update : update.slice(1), {
        stdio: "inherit",
      });
      isUpdated = true;
    }
    spawnSync(program, args, { stdio: ["ignore", "inherit", "inherit"] });
  }
  return missing();
}
