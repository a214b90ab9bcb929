exports = async () => {
  const db = context.services.get("mongodb-atlas").db("app");
  const limit = new Date(Date.parse("2026-03-01T00:00:00Z") - 30 * 24 * 3600 * 1000);
  const { deletedCount } = await db.collection("sessions").deleteMany({ lastSeen: { $lt: limit } });
  await db.collection("reports").insertOne({ _id: "cleanUp", deletedCount, by: context.user.type });
  console.log(`removed ${deletedCount} sessions`);
};
