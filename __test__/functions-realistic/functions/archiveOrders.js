exports = async () => {
  const client = context.services.get("mongodb-atlas");
  const orders = client.db("app").collection("orders");
  const archive = client.db("app").collection("archive");
  const done = [];
  for await (const order of orders.find({ state: "done" })) {
    done.push(order);
  }
  if (done.length === 0) return 0;
  await archive.insertMany(done);
  const { deletedCount } = await orders.deleteMany({ _id: { $in: done.map((order) => order._id) } });
  return deletedCount;
};
