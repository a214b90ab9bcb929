// Adds points to the custom data of the caller, and returns the new total. The function runs as
// the system user, so the rules do not apply to it: it must check its arguments itself.
exports = async function addPoints(points) {
  if (!Number.isInteger(points) || points < 1 || points > 10) {
    throw new Error("points must be a whole number from 1 to 10");
  }
  const service = context.services.get("mongodb-atlas");
  const customData = service.db("custom-user-data-database").collection("custom-user-data");
  const change = { $inc: { points }, $set: { awardedAt: new Date() } };
  const options = { upsert: true, returnNewDocument: true };
  const { points: total } = await customData.findOneAndUpdate({ userId: context.user.id }, change, options);
  return total;
};
