// What the benchmarks of collections have in common.
import fs from "node:fs";
import { BSON } from "userkeep";

/** The CPU time of this thread in nanoseconds; where the system does not tell, the time that its loop was not idle. */
export function mainThreadTime() {
  try {
    const [time] = fs.readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8").split(" ");
    return Number(time);
  } catch {
    return performance.eventLoopUtilization().active * 1e6;
  }
}

/** A document of a user's, of some 300 bytes. */
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
