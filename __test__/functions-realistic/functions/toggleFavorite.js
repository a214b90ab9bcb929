exports = async (itemId) => {
  const favorites = context.services.get("mongodb-atlas").db("app").collection("favorites");
  const _id = context.user.id;
  const isFavorite = (await favorites.count({ _id, items: itemId })) > 0;
  const update = isFavorite ? { $pull: { items: itemId } } : { $addToSet: { items: itemId } };
  await favorites.updateOne({ _id }, update, { upsert: true });
  return !isFavorite;
};
