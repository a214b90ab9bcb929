exports = async ({ tag, maxPrice, ids } = {}) => {
  const filter = {};
  if (tag) filter.tags = tag;
  if (maxPrice !== undefined) filter.price = { $lte: maxPrice };
  if (ids?.length) filter._id = { $in: ids };
  const products = context.services.get("mongodb-atlas").db("app").collection("products");
  return products.find(filter, { name: 1, price: 1 }).sort({ price: 1 }).limit(20);
};
