// Installs, starts and stops a MongoDB-compatible server for tests without MONGODB_URI.
//
//     node scripts/test-server.mjs install            builds it once per machine (minutes)
//     node scripts/test-server.mjs start DIR [FLAG…]  starts it on DIR, and prints its address
//     node scripts/test-server.mjs stop DIR           stops it; its data stays
//
// The server is SecantusDB (crates.io, `secantus-mdb`), which implements MongoDB's wire protocol.
// It is a separate program, and not part of Userkeep.
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const VERSION = "0.5.3-beta.196";
const HOME = process.env.MONGO_TEST_SERVER_HOME ?? path.join(os.homedir(), ".cache", "mongo-test-server");
const ROOT = path.join(HOME, `rust-${VERSION}`);
const PROGRAM = path.join(ROOT, "bin", "secantusd-rs");

/** Time limit for the server to start, and to stop, in milliseconds. */
const PATIENCE = 30_000;

/** Returns true if the server has been built on this machine. */
export function isInstalled() {
  return fs.existsSync(PROGRAM);
}

/** Builds the server, unless it has been built on this machine. */
export function install() {
  if (isInstalled()) {
    return;
  }
  if (spawnSync("cmake", ["--version"]).error) {
    throw new Error("cmake is needed to build the test server");
  }
  const { CARGO_TARGET_DIR, CARGO_BUILD_TARGET, RUSTFLAGS, ...environment } = process.env;
  // Its manifest requires a newer Rust than it needs.
  const args = ["install", "secantus-mdb", "--version", `=${VERSION}`, "--locked", "--ignore-rust-version"];
  const { status } = spawnSync("cargo", [...args, "--root", ROOT, "--quiet"], {
    cwd: "/",
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...environment, CARGO_PROFILE_RELEASE_LTO: "off", CARGO_PROFILE_RELEASE_CODEGEN_UNITS: "16" },
  });
  if (status !== 0) {
    throw new Error("the test server could not be built; set MONGODB_URI to use another one");
  }
}

function listens(port) {
  return new Promise((resolve) => {
    const socket = net.connect({ host: "127.0.0.1", port });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

/**
 * Starts the server on the data in a directory, and resolves to its address. A server that is
 * restarted has the same port as before.
 */
export async function start(directory, flags = []) {
  if (!isInstalled()) {
    throw new Error(
      "there is no MongoDB-compatible server: set MONGODB_URI, or run `node scripts/test-server.mjs install`",
    );
  }
  fs.mkdirSync(directory, { recursive: true });
  const log = path.join(directory, "server.log");
  const portFile = path.join(directory, "server.port");
  const before = fs.existsSync(portFile) ? fs.readFileSync(portFile, "utf8") : "0";
  const output = fs.openSync(log, "w");
  const args = ["--host", "127.0.0.1", "--port", before, "--storage-path", path.join(directory, "db")];
  const child = spawn(PROGRAM, [...args, "--cache-size", "256M", "--enable-test-commands", ...flags], {
    detached: true,
    stdio: ["ignore", output, output],
  });
  fs.closeSync(output);
  child.unref();
  fs.writeFileSync(path.join(directory, "server.pid"), `${child.pid}`);
  for (const end = Date.now() + PATIENCE; Date.now() < end && child.exitCode === null; await sleep(50)) {
    const port = /listening on [^ ]*:(\d+)/.exec(fs.readFileSync(log, "utf8"))?.[1];
    if (port && (await listens(Number(port)))) {
      fs.writeFileSync(portFile, port);
      return `mongodb://127.0.0.1:${port}/?directConnection=true`;
    }
  }
  throw new Error(`the test server did not start:\n${fs.readFileSync(log, "utf8").slice(-2000)}`);
}

function signal(pid, name) {
  try {
    process.kill(pid, name);
    return true;
  } catch (error) {
    if (error.code === "ESRCH") {
      return false;
    }
    throw error;
  }
}

/** Returns true if a process runs. A zombie on Linux does not, although it accepts signals. */
function isRunning(pid) {
  if (!signal(pid, 0)) {
    return false;
  }
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat[stat.lastIndexOf(")") + 2] !== "Z";
  } catch {
    // Not Linux, or the process has ended since.
    return signal(pid, 0);
  }
}

/**
 * Stops the server of a directory: SIGTERM, and SIGKILL after the time limit. Rejects if both
 * fail.
 */
export async function stop(directory) {
  const file = path.join(directory, "server.pid");
  if (!fs.existsSync(file)) {
    return;
  }
  const pid = Number(fs.readFileSync(file, "utf8"));
  for (const name of ["SIGTERM", "SIGKILL"]) {
    signal(pid, name);
    for (const end = Date.now() + PATIENCE; Date.now() < end; await sleep(20)) {
      if (!isRunning(pid)) {
        fs.rmSync(file);
        return;
      }
    }
  }
  throw new Error(`the test server, process ${pid}, did not end`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [command, directory, ...flags] = process.argv.slice(2);
  if (command === "install") {
    install();
  } else if (command === "start" && directory) {
    process.stdout.write(`${await start(directory, flags)}\n`);
  } else if (command === "stop" && directory) {
    await stop(directory);
  } else {
    process.stderr.write("Usage: node scripts/test-server.mjs install | start DIR [FLAG…] | stop DIR\n");
    process.exitCode = 2;
  }
}
