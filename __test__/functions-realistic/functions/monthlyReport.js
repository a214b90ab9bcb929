exports = () => {
  const visits = context.services.get("mongodb-atlas").db("app").collection("visits");
  return visits.aggregate([{ $group: { _id: "$month", visits: { $sum: 1 } } }, { $merge: { into: "months" } }]);
};
