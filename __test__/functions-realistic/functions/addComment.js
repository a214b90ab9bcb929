class ValidationError extends Error {
  constructor(message) {
    super(message);
    this.name = "ValidationError";
  }
}

exports = async (postId, text) => {
  if (!text || text.length > 20) {
    throw new ValidationError("a comment has 1 to 20 characters");
  }
  const posts = context.services.get("mongodb-atlas").db("app").collection("posts");
  const comment = { author: context.user.id, text };
  const { matchedCount } = await posts.updateOne({ _id: postId }, { $push: { comments: comment }, $inc: { count: 1 } });
  return matchedCount > 0;
};
