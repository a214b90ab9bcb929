exports = async (templateId, newId) => {
  const db = context.services.get("mongodb-atlas").db("app");
  const { _id, ...fields } = await db.collection("templates").findOne({ _id: templateId });
  // The entry of the log is not awaited.
  db.collection("audit").insertOne({ _id: newId, copied: _id, by: context.user.id });
  const { insertedId } = await db.collection("projects").insertOne({ ...fields, _id: newId, owner: context.user.id });
  return insertedId;
};
