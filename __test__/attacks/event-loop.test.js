"use strict";

// No operation blocks the event loop, however expensive it is.

const native = require("../../lib/native.js");
const { openOwned, range } = require("./support.js");

/**
 * Returns the CPU time of a call's synchronous part on this thread in milliseconds, and its
 * promise.
 */
function held(call) {
  const before = native.threadCpuTime();
  const pending = call();
  return [(native.threadCpuTime() - before) / 1000, pending];
}

describe("the event loop", () => {
  test("is not blocked by parsing, matching or reading", async () => {
    const { collection, user } = await openOwned();
    await collection.insertMany(range(120).map((n) => ({ _id: n, owner: user.id, long: range(500) })));
    await collection.insertOne({ _id: "large", owner: user.id, text: "x".repeat(8_000_000) });
    const conditions = range(300).map((n) => ({ long: { $ne: -n - 1 } }));
    // The time includes encoding the caller's own arguments, which happens on this thread.
    for (const call of [
      () => collection.find({ owner: user.id, $and: conditions }),
      () => collection.find({ _id: "large" }, { projection: { _id: 1 } }),
      () => collection.updateOne({ _id: 1 }, { $set: Object.fromEntries(range(500).map((n) => [`f${n}`, n])) }),
    ]) {
      await call();
      const times = [];
      for (let round = 0; round < 5; round++) {
        const [milliseconds, pending] = held(call);
        await pending;
        times.push(milliseconds);
      }
      expect(Math.min(...times)).toBeLessThan(5);
    }
  });

  test("does not wait for another operation's scan in memory", async () => {
    const { collection, user } = await openOwned({ store: "memory:", maxTimeMS: 1000 });
    await collection.insertMany(range(2000).map((n) => ({ _id: n, owner: user.id, list: range(50) })));
    const scan = collection.count({ $and: range(200).map((n) => ({ list: { $ne: -n - 1 } })) }).catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 20));
    const begun = performance.now();
    const read = collection.findOne({ _id: 1 });
    expect(performance.now() - begun).toBeLessThan(250);
    expect(await read).toMatchObject({ _id: 1 });
    await scan;
  });
});
