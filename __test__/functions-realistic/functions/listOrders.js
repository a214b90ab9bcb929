exports = async ({ page = 1, pageSize = 2 } = {}) => {
  const orders = context.services.get("mongodb-atlas").db("app").collection("orders");
  const query = { customer: context.user.id };
  const [total, items] = await Promise.all([
    orders.count(query),
    orders
      .find(query, { total: 1 })
      .sort({ total: -1 })
      .skip((page - 1) * pageSize)
      .limit(pageSize)
      .toArray(),
  ]);
  return { page, pages: Math.ceil(total / pageSize), items };
};
