exports = async (name) => {
  const counters = context.services.get("mongodb-atlas").db("app").collection("counters");
  const counter = await counters.findOneAndUpdate(
    { _id: name },
    { $inc: { value: 1 } },
    { upsert: true, returnNewDocument: true },
  );
  return counter.value;
};
