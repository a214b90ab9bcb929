// Runs `worker-rounds.cjs` in every mode, with 200 workers by default:
// node scripts/workers.mjs [COUNT]
//
// Each mode has its own process, so that a crash is reported.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const count = process.argv[2] ?? "200";
const script = fileURLToPath(new URL("worker-rounds.cjs", import.meta.url));
let failed = 0;
for (const mode of ["turns", "at-once", "terminated"]) {
  for (const main of [[], ["main"]]) {
    const start = Date.now();
    const { status, signal, stdout, stderr } = spawnSync(process.execPath, [script, count, mode, ...main], {
      encoding: "utf8",
    });
    const ok = status === 0 && stdout.trim() === count;
    failed += ok ? 0 : 1;
    const seconds = ((Date.now() - start) / 1000).toFixed(0);
    const outcome = signal ?? `status ${status}, ${stdout.trim()} of ${count} ended`;
    console.log(`${ok ? "ok" : "FAILED"}  ${[mode, ...main].join(" ")}: ${outcome} (${seconds} s)\n${stderr}`.trim());
  }
}
process.exitCode = failed ? 1 : 0;
