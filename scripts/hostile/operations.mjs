// Hostile operations of a user: each is valid, but expensive because of its size, its nesting, or
// its work on the user's own documents.

export const DATABASE = "db";

/** Number of documents that `documents` creates for a user. */
export const DOCUMENTS = 1000;

/** Share of the operations that are heavy. */
const HEAVY = 1 / 15;
/** Largest size of an operation that is not heavy. */
const LARGEST_LIGHT = 1000;
/** Maximum number of documents that an operation reads if it is not heavy. */
const LARGEST_WINDOW = 300;
/** Lower limit of the field `n` in temporary documents, which are deleted again. */
const TEMPORARY = 1_000_000;

/** Returns a pseudo-random generator of numbers from 0 to 1 with a seed (mulberry32). */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Draws the sizes of one operation. They depend only on the seed and the operation's number. */
class Draw {
  #random;

  constructor(seed, number) {
    this.#random = random(Math.imul(seed, 0x9e3779b1) + number);
    this.isHeavy = this.#random() < HEAVY;
  }

  /** Returns a whole number from 0 to `count` - 1. */
  below(count) {
    return Math.floor(this.#random() * count);
  }

  /**
   * Returns a log-distributed size: for a heavy operation from `most / 10` to `most`, else from 1
   * to 1000. The work grows with the size to the power of `exponent`, so light sizes end at that
   * root of 1000.
   */
  size(most, exponent = 1) {
    const least = this.isHeavy ? Math.max(1, most / 10) : 1;
    const largest = this.isHeavy ? most : Math.min(most, LARGEST_LIGHT ** (1 / exponent));
    return Math.max(1, Math.round(least * (largest / least) ** this.#random()));
  }

  /**
   * Returns a filter: for all of the user's documents if the operation is heavy, else for up to
   * 300.
   */
  window() {
    if (this.isHeavy) {
      return {};
    }
    const $gte = this.below(DOCUMENTS);
    return { n: { $gte, $lt: $gte + this.size(LARGEST_WINDOW) } };
  }

  /** Returns an `_id`: of a document with long arrays if the operation is heavy, else of any. */
  id(owner) {
    return `${owner}-${this.isHeavy ? 7 : this.below(DOCUMENTS)}`;
  }
}

/**
 * Yields a user's documents in batches: most are small, some have long arrays, some are wide or
 * deep.
 */
export function* documents(owner) {
  let part = [];
  for (let n = 0; n < DOCUMENTS; n++) {
    const document = { _id: `${owner}-${n}`, owner, n, tag: `t${n % 50}`, list: [n, n + 1, n + 2] };
    if (n % 500 === 7) {
      document.long = range(20_000);
      document.people = people(300);
    } else if (n % 50 === 7) {
      document.long = range(1000);
      document.people = people(300);
    } else if (n % 250 === 3) {
      document.wide = fields(3000);
      document.deep = nested(150, "a", 1);
    }
    part.push(document);
    if (part.length === 500) {
      yield part;
      part = [];
    }
  }
}

/**
 * Returns an array of `value(n)` for each number from 0 to `count` - 1; by default the numbers.
 */
function range(count, value = (n) => n) {
  const made = new Array(count);
  for (let n = 0; n < count; n++) {
    made[n] = value(n);
  }
  return made;
}

const people = (count) => range(count, (id) => ({ id, name: `p${id}`, tags: [0, 1, 2] }));

function nested(depth, name, value) {
  let inner = value;
  for (let n = 0; n < depth; n++) {
    inner = { [name]: inner };
  }
  return inner;
}

/** Returns an object with a field for each number from 0 to `count` - 1. */
function object(count, name, value) {
  const made = {};
  for (let n = 0; n < count; n++) {
    made[name(n)] = value(n);
  }
  return made;
}

const fields = (count, value = 1) =>
  object(
    count,
    (n) => `f${n}`,
    () => value,
  );

/** Returns a path of `depth` names. */
const deepPath = (depth, name = "a") => new Array(depth).fill(name).join(".");

/** Each function draws sizes, and returns an operation on a collection for the user with an id. */
const OPERATIONS = {
  "find $and of $ne": (draw) => {
    const $and = range(draw.size(20_000), (n) => ({ long: { $ne: -n - 1 } }));
    const window = draw.window();
    return (c) => c.find({ ...window, $and });
  },
  "find $or of $gt": (draw) => {
    const $or = range(draw.size(10_000), (n) => ({ long: { $gt: 1e6 + n } }));
    const window = draw.window();
    return (c) => c.count({ ...window, $or });
  },
  "find $in": (draw) => {
    const $in = range(draw.size(50_000), (n) => n + 1e6);
    const window = draw.window();
    return (c) => c.find({ ...window, long: { $in } });
  },
  "find $nin": (draw) => {
    const $nin = range(draw.size(50_000), (n) => n + 1e6);
    const window = draw.window();
    return (c) => c.count({ ...window, long: { $nin } });
  },
  "find $all": (draw) => {
    const $all = range(draw.size(20_000));
    const window = draw.window();
    return (c) => c.find({ ...window, long: { $all } }, { limit: 1 });
  },
  "find _id $in": (draw, id) => {
    const $in = range(draw.size(200_000), (n) => `${id}-${n * 7}`);
    return (c) => c.count({ _id: { $in } });
  },
  "find arrays $in": (draw) => {
    const $in = range(draw.size(20_000), (n) => [n, n + 1, [n + 3]]);
    const window = draw.window();
    return (c) => c.count({ ...window, list: { $in } });
  },
  "find $elemMatch": (draw) => {
    const conditions = object(
      draw.size(500),
      (n) => `k${n}`,
      () => ({ $exists: false }),
    );
    const window = draw.window();
    return (c) => c.find({ ...window, people: { $elemMatch: { ...conditions, id: -1 } } });
  },
  "find nested $not": (draw) => {
    // Each level contains the one below twice.
    const depth = draw.size(11, 3);
    let filter = { n: -1 };
    for (let n = 0; n < depth; n++) {
      filter = { $nor: [{ $and: [filter, { $or: [filter] }] }] };
    }
    const window = draw.window();
    return (c) => c.count({ ...window, $and: [filter] });
  },
  "find deep $nor": (draw) => {
    let filter = { long: { $gt: 1e6 } };
    for (let n = draw.size(45); n > 0; n--) {
      filter = { $nor: [{ $and: [filter, { people: { $size: n } }] }] };
    }
    const window = draw.window();
    return (c) => c.count({ ...window, $and: [filter] });
  },
  "find by deep paths": (draw) => {
    const $or = range(draw.size(2000), (n) => ({ [`deep.${deepPath(1 + (n % 150))}.x${n}`]: { $exists: true } }));
    const window = draw.window();
    return (c) => c.count({ ...window, $or });
  },
  "find everything sorted": (draw) => {
    const sort = object(
      draw.size(300),
      (n) => `s${n}.x`,
      (n) => (n % 2 ? 1 : -1),
    );
    const limit = draw.size(100);
    const window = draw.window();
    return (c) => c.find(window, { sort, limit });
  },
  "find everything": (draw) => {
    const window = draw.window();
    return (c) => c.find(window);
  },
  "find projected": (draw) => {
    const projection = fields(draw.size(50_000));
    const window = draw.window();
    return (c) => c.find({ ...window, wide: { $exists: true } }, { projection });
  },
  "update $set of fields": (draw, id) => {
    const $set = fields(draw.size(50_000));
    const _id = `${id}-scratch-${draw.isHeavy}`;
    return (c) => c.updateOne({ _id }, { $set, $setOnInsert: { owner: id } }, { upsert: true });
  },
  "update $set of deep paths": (draw, id) => {
    const depth = draw.size(190);
    const $set = object(
      draw.size(500, 2),
      (n) => `nest.${n % 7}.${deepPath(depth, "b")}.x${n}`,
      (n) => n,
    );
    const _id = `${id}-nest`;
    return async (c) => {
      await c.updateOne({ _id }, { $set, $setOnInsert: { owner: id } }, { upsert: true });
      await c.updateOne({ _id }, { $unset: { nest: "" } });
    };
  },
  "update $unset of fields": (draw) => {
    const $unset = fields(draw.size(50_000), "");
    const window = draw.window();
    return (c) => c.updateMany({ ...window, tag: "t3" }, { $unset });
  },
  "update $rename of fields": (draw) => {
    const $rename = object(
      draw.size(5000),
      (n) => `f${n}`,
      (n) => `g${n}`,
    );
    const window = draw.window();
    return (c) => c.updateMany({ ...window, tag: "t3" }, { $rename });
  },
  "update of conflicting paths": (draw) => {
    const $set = { ...fields(draw.size(20_000)), "f0.a": 1 };
    return (c) => c.updateOne({ tag: "t3" }, { $set });
  },
  "update $push sorted": (draw, id) => {
    const $each = range(draw.size(100_000), (n) => (n * 7919) % 10_007);
    const push = { scratch: { $each, $sort: 1, $slice: 1000 } };
    const _id = draw.id(id);
    return (c) => c.updateOne({ _id }, { $push: push });
  },
  "update $addToSet": (draw, id) => {
    const $each = range(draw.size(30_000), (n) => n * 3);
    const _id = draw.id(id);
    return (c) => c.updateOne({ _id }, { $addToSet: { set: { $each } } });
  },
  "update $pullAll": (draw) => {
    const long = range(draw.size(50_000), (n) => -n - 1);
    const window = draw.window();
    return (c) => c.updateMany({ ...window, long: { $exists: true } }, { $pullAll: { long } });
  },
  "update $pull": (draw) => {
    const $in = range(draw.size(20_000), (n) => -n - 1);
    const window = draw.window();
    return (c) => c.updateMany({ ...window, long: { $exists: true } }, { $pull: { long: { $in } } });
  },
  "update by array filters": (draw) => {
    const $in = range(draw.size(20_000), (n) => n * 2);
    const update = { $set: { "people.$[p].seen": true } };
    const window = draw.window();
    return (c) =>
      c.updateMany({ ...window, people: { $exists: true } }, update, { arrayFilters: [{ "p.id": { $in } }] });
  },
  "update a distant array index": (draw, id) => {
    const $set = { [`far.${draw.size(1_000_000)}`]: 1 };
    const _id = draw.id(id);
    return async (c) => {
      await c.updateOne({ _id }, { $set });
      await c.updateOne({ _id }, { $unset: { far: "" } });
    };
  },
  "update everything": (draw) => {
    const touched = 1 + draw.below(9);
    const window = draw.window();
    return (c) => c.updateMany(window, { $inc: { touched } });
  },
  "update by a pipeline": (draw, id) => {
    const $reduce = {
      input: { $range: [0, draw.size(20_000, 1.5)] },
      initialValue: [],
      in: { $concatArrays: ["$$value", ["$$this"]] },
    };
    const _id = draw.id(id);
    return (c) => c.updateOne({ _id }, [{ $set: { computed: { $size: { $reduce } } } }]);
  },
  "insert many": (draw, id) => {
    const made = range(draw.size(12_000), (n) => ({ _id: `${id}-new-${n}`, owner: id, n: TEMPORARY + n }));
    return async (c) => {
      await c.deleteMany({ n: { $gte: TEMPORARY } });
      await c.insertMany(made);
    };
  },
  "insert one large": (draw, id) => {
    const text = "x".repeat(draw.size(4_000_000));
    return async (c) => {
      await c.deleteMany({ n: { $gte: TEMPORARY } });
      await c.insertOne({ _id: `${id}-large`, owner: id, n: TEMPORARY, text });
    };
  },
  "insert nested": (draw, id) => {
    const depth = draw.size(190);
    const made = range(draw.size(2000, 2), (n) => ({
      _id: `${id}-nested-${n}`,
      owner: id,
      n: TEMPORARY + n,
      inner: nested(depth, `k${n % 3}`, [n]),
    }));
    return async (c) => {
      await c.deleteMany({ n: { $gte: TEMPORARY } });
      await c.insertMany(made);
    };
  },
  "insert for another user": (draw) => {
    const made = range(draw.size(5000), (n) => ({ n, owner: "another-user" }));
    return (c) => c.insertMany(made);
  },
  "upsert of a hidden document": (draw) => {
    const n = draw.size(100);
    return (c) => c.updateOne({ owner: "another-user", n }, { $set: { secret: "found" } }, { upsert: true });
  },
  "aggregate three $unwind": (draw) => {
    // The product of three arrays. A heavy operation uses those of the documents, which have up to
    // 20 000 items.
    const items = draw.isHeavy ? "$long" : { $range: [0, draw.size(1000, 3)] };
    const copies = range(3, (n) => ({ $addFields: { [`l${n}`]: items } }));
    const unwound = range(draw.isHeavy ? 3 + draw.below(4) : 3, (n) => ({ $unwind: n < 3 ? `$l${n}` : "$long" }));
    const $match = draw.isHeavy ? { long: { $exists: true } } : { n: draw.below(DOCUMENTS) };
    const shown = draw.isHeavy ? [] : [{ $project: { l0: 1, l1: 1, l2: 1 } }];
    return (c) => c.aggregate([{ $match }, ...copies, ...unwound, ...shown]);
  },
  "aggregate with a large result": (draw, id) => {
    const copies = { $range: [0, draw.size(100, 3)] };
    const _id = draw.id(id);
    return (c) => c.aggregate([{ $match: { _id } }, { $addFields: { copies } }, { $unwind: "$copies" }]);
  },
  "aggregate $group $push": (draw) => {
    const $match = draw.window();
    return (c) => c.aggregate([{ $match }, { $unwind: "$list" }, { $group: { _id: null, all: { $push: "$$ROOT" } } }]);
  },
  "aggregate $group $addToSet": (draw) => {
    const $match = { ...draw.window(), long: { $exists: true } };
    const $group = { _id: null, all: { $addToSet: "$long" }, n: { $sum: 1 } };
    return (c) => c.aggregate([{ $match }, { $unwind: "$long" }, { $group }, { $project: { n: 1 } }]);
  },
  "aggregate $sort": (draw) => {
    const $match = draw.window();
    return (c) => c.aggregate([{ $match }, { $unwind: "$list" }, { $sort: { list: -1, n: 1 } }, { $limit: 3 }]);
  },
  "aggregate nested $map": (draw) => {
    const input = { $range: [0, draw.size(2000, 3)] };
    const inner = { $map: { input, as: "b", in: { $add: ["$$a", "$$b"] } } };
    const $match = draw.window();
    return (c) =>
      c.aggregate([{ $match }, { $limit: 100 }, { $project: { x: { $map: { input, as: "a", in: inner } } } }]);
  },
  "aggregate $reduce of strings": (draw) => {
    const input = { $range: [0, draw.size(20_000, 2)] };
    const grown = { $concat: ["$$value", "xxxxxxxxxxxxxxxx"] };
    const $match = draw.window();
    return (c) =>
      c.aggregate([
        { $match },
        { $project: { x: { $strLenBytes: { $reduce: { input, initialValue: "", in: grown } } } } },
      ]);
  },
  "aggregate $addFields of many": (draw) => {
    const set = object(
      draw.size(5000, 1.5),
      (n) => `a.f${n}`,
      (n) => n,
    );
    const $match = draw.window();
    return (c) => c.aggregate([{ $match }, { $limit: 50 }, { $addFields: set }, { $count: "n" }]);
  },
  "aggregate of regular expressions": (draw) => {
    const input = `${"a".repeat(draw.size(5000, 3))}!`;
    const $regexMatch = { input, regex: "^(a+)+$" };
    const $match = draw.window();
    return (c) => c.aggregate([{ $match }, { $project: { x: { $regexMatch } } }]);
  },
  "delete by ids": (draw, id) => {
    const $in = range(draw.size(50_000), (n) => `${id}-none-${n}`);
    return (c) => c.deleteMany({ _id: { $in } });
  },
  "find and modify by a sort": (draw, id) => {
    const sort = { long: -1, n: draw.below(2) ? 1 : -1 };
    const window = draw.window();
    return (c) => c.findOneAndUpdate({ ...window, owner: id }, { $inc: { hit: 1 } }, { sort });
  },
};

/** The names of all kinds of operations. */
export const KINDS = Object.keys(OPERATIONS);

/**
 * Returns the hostile operation with a number, for the user with an id: its name, `isHeavy`, and
 * `run`, which executes it on the user's collection.
 */
export function hostileOperation(seed, number, id) {
  const draw = new Draw(seed, number);
  const name = KINDS[draw.below(KINDS.length)];
  return { name, isHeavy: draw.isHeavy, run: OPERATIONS[name](draw, id) };
}
