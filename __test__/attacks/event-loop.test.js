"use strict";

// The event loop of the process is never held by an operation, however much it costs.

const native = require("../../lib/native.js");
const { openOwned, range } = require("./support.js");

/** The CPU time of this thread in a call's synchronous part, in milliseconds. */
function held(call) {
  const before = native.threadCpuTime();
  const pending = call();
  return [(native.threadCpuTime() - before) / 1000, pending];
}

describe("the event loop", () => {
  test("is not held by parsing, matching or reading", async () => {
    const { collection, user } = await openOwned();
    await collection.insertMany(range(120).map((n) => ({ _id: n, owner: user.id, long: range(500) })));
    await collection.insertOne({ _id: "large", owner: user.id, text: "x".repeat(8_000_000) });
    const conditions = range(300).map((n) => ({ long: { $ne: -n - 1 } }));
    // What is written by this thread is the caller's own: the same arguments are written without a call beside it.
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
