// Helpers of the benchmarks of collections.
import fs from "node:fs";
import { BSON } from "userkeep";

/**
 * Returns the CPU time of this thread in nanoseconds, or the active time of its event loop if the
 * system does not report it.
 */
export function mainThreadTime() {
  try {
    const [time] = fs.readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8").split(" ");
    return Number(time);
  } catch {
    return performance.eventLoopUtilization().active * 1e6;
  }
}

/** Returns a document of a user, of about 300 bytes. */
export const document = (index, userId) => ({
  _id: new BSON.ObjectId(),
  userId,
  index,
  favoriteColor: "pink",
  name: "Ada Lovelace",
  email: `user${index}@example.com`,
  visits: index * 3,
  joined: new Date(1_700_000_000_000 + index),
  address: { street: "12 Example Street", city: "London", zip: "N1 9GU" },
  tags: ["alpha", "beta", "gamma"],
});
