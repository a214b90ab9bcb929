exports = async (_id, fields) => {
  if (!context.runningAsSystem()) {
    throw new Error("must run as system");
  }
  const tickets = context.services.get("mongodb-atlas").db("app").collection("tickets");
  return tickets.findOneAndUpdate({ _id }, { $set: fields }, { returnNewDocument: true });
};
