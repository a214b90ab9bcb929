// Fuzzes the parsers of untrusted input, one target after the other, 600 seconds each by default:
//
//     node scripts/fuzz.mjs [--seconds 600] [--seed N] [TARGET…]
import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";
import { hostTriple, run } from "./run.mjs";

const TARGETS = ["bson", "ejson", "filter", "update", "pipeline", "token"];
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: "string", default: "600" }, seed: { type: "string", default: `${Date.now()}` } },
});
const triple = hostTriple();
run("cargo", ["build", "--target", triple, "--package", "userkeep-testing", "--example", "fuzz"]);
for (const target of positionals.length > 0 ? positionals : TARGETS) {
  const args = [target, options.seconds, options.seed];
  const { status } = spawnSync(`target/${triple}/debug/examples/fuzz`, args, {
    stdio: ["ignore", "inherit", "ignore"],
  });
  process.exitCode ||= status ?? 1;
}
