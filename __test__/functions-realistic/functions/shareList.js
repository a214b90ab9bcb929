exports = async (listId, email) => {
  const db = context.services.get("mongodb-atlas").db("app");
  const lists = db.collection("lists");
  const list = await lists.findOne({ _id: listId, owner: context.user.id });
  if (!list) {
    throw new Error("only the owner can share a list");
  }
  const invited = await db.collection("profiles").findOne({ email: email.toLowerCase() }, { _id: 1 });
  if (!invited) {
    return { shared: false, reason: "unknown user" };
  }
  await lists.updateOne({ _id: listId }, { $addToSet: { readers: invited._id } });
  return { shared: true, reader: invited._id };
};
