import { spawnSync } from "node:child_process";

/** Runs a command with this process's input and output. If it fails, exits with its status. */
export function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { stdio: "inherit", ...options });
  if (error || status !== 0) {
    console.error(`${command} ${args.join(" ")} failed${error ? `: ${error.message}` : ""}`);
    process.exit(status || 1);
  }
}

/** Returns the target triple of this machine in rustc's notation. */
export function hostTriple() {
  const { stdout } = spawnSync("rustc", ["-vV"], { encoding: "utf8" });
  return /^host: (.+)$/m.exec(stdout)?.[1] ?? "";
}
