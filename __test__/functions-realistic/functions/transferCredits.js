exports = async (from, to, amount) => {
  const client = context.services.get("mongodb-atlas");
  const accounts = client.db("app").collection("accounts");
  const session = client.startSession();
  try {
    await session.withTransaction(async () => {
      const taken = await accounts.updateOne(
        { _id: from, credits: { $gte: amount } },
        { $inc: { credits: -amount } },
        { session },
      );
      if (taken.matchedCount === 0) {
        throw new Error("not enough credits");
      }
      await accounts.updateOne({ _id: to }, { $inc: { credits: amount } }, { session });
    });
    return { ok: true };
  } catch (err) {
    await session.abortTransaction();
    return { ok: false, reason: err.message };
  } finally {
    await session.endSession();
  }
};
