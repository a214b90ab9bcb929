exports = async (showId, seats) => {
  if (!Number.isInteger(seats) || seats < 1) {
    throw "seats must be a positive number";
  }
  const shows = context.services.get("mongodb-atlas").db("app").collection("shows");
  const { modifiedCount } = await shows.updateOne(
    { _id: showId, free: { $gte: seats } },
    { $inc: { free: -seats }, $push: { bookings: { user: context.user.id, seats } } },
  );
  return modifiedCount === 1 ? { status: "success" } : { status: "fail" };
};
