exports = (year) => {
  const sales = context.services.get("mongodb-atlas").db("app").collection("sales");
  return sales
    .aggregate([
      { $match: { year } },
      { $group: { _id: "$region", cents: { $sum: "$cents" }, count: { $sum: 1 } } },
      { $sort: { cents: -1 } },
    ])
    .toArray();
};
