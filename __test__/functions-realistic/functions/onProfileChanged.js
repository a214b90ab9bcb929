exports = async (changeEvent) => {
  const { fullDocument, operationType, updateDescription } = changeEvent;
  if (operationType !== "update" || !("name" in updateDescription.updatedFields)) {
    return;
  }
  const posts = context.services.get("mongodb-atlas").db("app").collection("posts");
  const { modifiedCount } = await posts.updateMany(
    { author: changeEvent.documentKey._id },
    { $set: { authorName: fullDocument.name } },
  );
  console.log("renamed", modifiedCount);
};
