// Hostile operations of a user: each is legal, and costs much by its size, its nesting, or what it does with the user's
// own documents.

export const DATABASE = "db";

/** Numbers from 0 to 1 that are the same for a seed (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A user's documents, in parts: most are small, some have long arrays, some are wide or deep. */
export function* documents(owner, count) {
  let part = [];
  for (let n = 0; n < count; n++) {
    const document = { _id: `${owner}-${n}`, owner, n, tag: `t${n % 50}`, list: [n, n + 1, n + 2] };
    if (n % 500 === 7) {
      document.long = range(20_000);
    } else if (n % 50 === 7) {
      document.long = range(1000);
      document.people = range(300).map((i) => ({ id: i, name: `p${i}`, tags: range(3) }));
    } else if (n % 250 === 3) {
      document.wide = Object.fromEntries(range(3000).map((i) => [`f${i}`, i]));
      document.deep = nested(150, "a", 1);
    }
    part.push(document);
    if (part.length === 500) {
      yield part;
      part = [];
    }
  }
}

const range = (count) => Array.from({ length: count }, (_, n) => n);

function nested(depth, name, value) {
  let inner = value;
  for (let n = 0; n < depth; n++) {
    inner = { [name]: inner };
  }
  return inner;
}

const fields = (count, value = 1) => Object.fromEntries(range(count).map((n) => [`f${n}`, value]));

/** A size from 1 to `most`: most are small, and some are as large as can be. */
const size = (draw, most) => Math.max(1, Math.floor(most ** (draw() < 0.02 ? 1 : draw() * draw())));

/** Each makes of a source of numbers and a user's id something to do with a collection. */
const OPERATIONS = {
  "find $and of $ne": (draw) => {
    const $and = range(size(draw, 20_000)).map((n) => ({ long: { $ne: -n - 1 } }));
    return (c) => c.find({ $and });
  },
  "find $or of $gt": (draw) => {
    const $or = range(size(draw, 10_000)).map((n) => ({ long: { $gt: 1e6 + n } }));
    return (c) => c.count({ $or });
  },
  "find $in": (draw) => {
    const $in = range(size(draw, 50_000)).map((n) => n + 1e6);
    return (c) => c.find({ long: { $in } });
  },
  "find $nin": (draw) => {
    const $nin = range(size(draw, 50_000)).map((n) => n + 1e6);
    return (c) => c.count({ long: { $nin } });
  },
  "find $all": (draw) => {
    const $all = range(size(draw, 20_000));
    return (c) => c.find({ long: { $all } }, { limit: 1 });
  },
  "find _id $in": (draw, id) => {
    const $in = range(size(draw, 200_000)).map((n) => `${id}-${n * 7}`);
    return (c) => c.count({ _id: { $in } });
  },
  "find $elemMatch": (draw) => {
    const conditions = Object.fromEntries(range(size(draw, 500)).map((n) => [`k${n}`, { $exists: false }]));
    return (c) => c.find({ people: { $elemMatch: { ...conditions, id: -1 } } });
  },
  "find nested $not": (draw) => {
    const depth = size(draw, 60);
    let filter = { n: -1 };
    for (let n = 0; n < depth; n++) {
      filter = { $nor: [{ $and: [filter, { $or: [filter] }] }] };
      if (JSON.stringify(filter).length > 50_000) {
        break;
      }
    }
    return (c) => c.count(filter);
  },
  "find everything sorted": (draw) => {
    const sort = Object.fromEntries(range(size(draw, 300)).map((n) => [`s${n}.x`, n % 2 ? 1 : -1]));
    return (c) => c.find({}, { sort, limit: size(draw, 100) });
  },
  "find everything": () => (c) => c.find({}),
  "find projected": (draw) => {
    const projection = fields(size(draw, 50_000));
    return (c) => c.find({ wide: { $exists: true } }, { projection });
  },
  "update $set of fields": (draw, id) => {
    const $set = fields(size(draw, 50_000));
    return (c) => c.updateOne({ _id: `${id}-scratch` }, { $set, $setOnInsert: { owner: id } }, { upsert: true });
  },
  "update $unset of fields": (draw) => {
    const $unset = fields(size(draw, 50_000), "");
    return (c) => c.updateMany({ tag: "t3" }, { $unset });
  },
  "update $rename of fields": (draw) => {
    const $rename = Object.fromEntries(range(size(draw, 5000)).map((n) => [`f${n}`, `g${n}`]));
    return (c) => c.updateMany({ tag: "t3" }, { $rename });
  },
  "update of conflicting paths": (draw) => {
    const $set = { ...fields(size(draw, 20_000)), "f0.a": 1 };
    return (c) => c.updateOne({ tag: "t3" }, { $set });
  },
  "update $push sorted": (draw, id) => {
    const $each = range(size(draw, 100_000)).map((n) => (n * 7919) % 10_007);
    const push = { scratch: { $each, $sort: 1, $slice: 1000 } };
    return (c) => c.updateOne({ _id: `${id}-1` }, { $push: push });
  },
  "update $addToSet": (draw, id) => {
    const $each = range(size(draw, 30_000)).map((n) => n * 3);
    return (c) => c.updateOne({ _id: `${id}-7` }, { $addToSet: { set: { $each } } });
  },
  "update $pullAll": (draw) => {
    const long = range(size(draw, 50_000)).map((n) => -n - 1);
    return (c) => c.updateMany({ long: { $exists: true } }, { $pullAll: { long } });
  },
  "update $pull": (draw) => {
    const $in = range(size(draw, 20_000)).map((n) => -n - 1);
    return (c) => c.updateMany({ long: { $exists: true } }, { $pull: { long: { $in } } });
  },
  "update by array filters": (draw) => {
    const $in = range(size(draw, 20_000)).map((n) => n * 2);
    const update = { $set: { "people.$[p].seen": true } };
    return (c) => c.updateMany({ people: { $exists: true } }, update, { arrayFilters: [{ "p.id": { $in } }] });
  },
  "update a far item": (draw, id) => (c) =>
    c.updateOne({ _id: `${id}-2` }, { $set: { [`far.${size(draw, 1_000_000)}`]: 1 } }),
  "update everything": (draw) => (c) => c.updateMany({}, { $inc: { touched: size(draw, 9) } }),
  "update by a pipeline": (draw, id) => {
    const $reduce = {
      input: { $range: [0, size(draw, 20_000)] },
      initialValue: [],
      in: { $concatArrays: ["$$value", ["$$this"]] },
    };
    return (c) => c.updateOne({ _id: `${id}-4` }, [{ $set: { computed: { $size: { $reduce } } } }]);
  },
  "insert many": (draw, id) => {
    const made = range(size(draw, 12_000)).map((n) => ({ _id: `${id}-new-${n}`, owner: id, temporary: true, n }));
    return async (c) => {
      await c.deleteMany({ temporary: true });
      await c.insertMany(made);
    };
  },
  "insert one large": (draw, id) => {
    const text = "x".repeat(size(draw, 4_000_000));
    return async (c) => {
      await c.deleteMany({ temporary: true });
      await c.insertOne({ _id: `${id}-large`, owner: id, temporary: true, text });
    };
  },
  "insert of another's": (draw) => (c) => c.insertMany(range(size(draw, 5000)).map((n) => ({ n, owner: "nobody" }))),
  "upsert of a hidden one": (draw) => (c) =>
    c.updateOne({ owner: "nobody", n: size(draw, 100) }, { $set: { secret: "found" } }, { upsert: true }),
  "aggregate $unwind thrice": (draw) => {
    const stages = range(size(draw, 4)).map(() => ({ $unwind: "$long" }));
    const copies = range(3).map((n) => ({ $addFields: { [`l${n}`]: "$long" } }));
    const more = range(3).map((n) => ({ $unwind: `$l${n}` }));
    return (c) => c.aggregate([{ $match: { long: { $exists: true } } }, ...copies, ...stages.slice(1), ...more]);
  },
  "aggregate $group $push": () => (c) =>
    c.aggregate([{ $unwind: "$list" }, { $group: { _id: null, all: { $push: "$$ROOT" } } }]),
  "aggregate $group $addToSet": () => (c) =>
    c.aggregate([
      { $match: { long: { $exists: true } } },
      { $unwind: "$long" },
      { $group: { _id: null, all: { $addToSet: "$long" }, n: { $sum: 1 } } },
      { $project: { n: 1 } },
    ]),
  "aggregate $sort": () => (c) => c.aggregate([{ $unwind: "$list" }, { $sort: { list: -1, n: 1 } }, { $limit: 3 }]),
  "aggregate nested $map": (draw) => {
    const input = { $range: [0, size(draw, 2000)] };
    const inner = { $map: { input, as: "b", in: { $add: ["$$a", "$$b"] } } };
    return (c) => c.aggregate([{ $limit: 100 }, { $project: { x: { $map: { input, as: "a", in: inner } } } }]);
  },
  "aggregate $reduce of texts": (draw) => {
    const input = { $range: [0, size(draw, 20_000)] };
    const grown = { $concat: ["$$value", "xxxxxxxxxxxxxxxx"] };
    return (c) =>
      c.aggregate([{ $project: { x: { $strLenBytes: { $reduce: { input, initialValue: "", in: grown } } } } }]);
  },
  "aggregate $addFields of many": (draw) => {
    const set = Object.fromEntries(range(size(draw, 5000)).map((n) => [`a.f${n}`, n]));
    return (c) => c.aggregate([{ $limit: 50 }, { $addFields: set }, { $count: "n" }]);
  },
  "aggregate of regular expressions": (draw) => {
    const input = `${"a".repeat(size(draw, 5000))}!`;
    const $regexMatch = { input, regex: "^(a+)+$" };
    return (c) => c.aggregate([{ $project: { x: { $regexMatch } } }]);
  },
  "delete by ids": (draw, id) => {
    const $in = range(size(draw, 50_000)).map((n) => `${id}-none-${n}`);
    return (c) => c.deleteMany({ _id: { $in } });
  },
  "find and modify by a sort": (draw, id) => (c) =>
    c.findOneAndUpdate({ owner: id }, { $inc: { hit: 1 } }, { sort: { long: -1, n: size(draw, 2) > 1 ? 1 : -1 } }),
};

const NAMES = Object.keys(OPERATIONS);

/** A hostile operation: its name, and what it does with the user's collection. */
export function batch(draw, id) {
  const name = NAMES[Math.floor(draw() * NAMES.length)];
  return { name, run: OPERATIONS[name](draw, id) };
}
