"use strict";

// A server in a process of its own, which reports how long its event loop was held. Started with
// `fork`: the first message has the options of `serve`.

const fs = require("node:fs");
const { monitorEventLoopDelay } = require("node:perf_hooks");
const Realm = require("../..");

/** Receives what operators usually log. */
const logger = Object.assign(() => {}, { level: "info" });

const delays = monitorEventLoopDelay({ resolution: 1 });

/** The part of the delays, in milliseconds, in which this thread did not wait for a processor. */
const held = { longest: 0, at: 0, waited: 0 };

const isOnLinux = process.platform === "linux";
const schedule = isOnLinux && fs.openSync(`/proc/self/task/${process.pid}/schedstat`, "r");
const bytes = Buffer.alloc(100);

/** Returns how long this thread has waited for a processor, in milliseconds. */
function waitingTime() {
  const [, waited] = bytes.latin1Slice(0, fs.readSync(schedule, bytes, 0, bytes.length, 0)).split(" ");
  return Number(waited) / 1e6;
}

function measure() {
  const [at, waited] = [performance.now(), waitingTime()];
  held.longest = Math.max(held.longest, at - held.at - (waited - held.waited));
  Object.assign(held, { at, waited });
}

const answers = {
  async serve(options) {
    const { url } = await Realm.serve({ ...options, port: 0, store: "memory:", logger });
    delays.enable();
    if (isOnLinux) {
      setInterval(measure, 1);
    }
    return url;
  },
  /** Forgets the delays until now. */
  async reset() {
    delays.reset();
    Object.assign(held, { longest: 0, at: performance.now(), waited: held.waited });
    return null;
  },
  /**
   * Returns the longest delay in milliseconds, on Linux without the time in which other threads
   * had the processors, and the resident memory in MB.
   */
  async report() {
    const delay = delays.max / 1e6;
    const longest = isOnLinux ? Math.min(held.longest, delay) : delay;
    return { longest, delay, memory: process.memoryUsage.rss() / 2 ** 20 };
  },
};

process.on("message", async ({ name, value }) => process.send(await answers[name](value)));
process.on("disconnect", () => process.exit());
