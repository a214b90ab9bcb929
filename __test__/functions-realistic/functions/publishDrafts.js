exports = async () => {
  const articles = context.services.get("mongodb-atlas").db("app").collection("articles");
  const drafts = await articles.find({ state: "ready" }).toArray();
  const operations = drafts.map(({ _id, title }) => ({
    updateOne: {
      filter: { _id },
      update: { $set: { state: "published", slug: title.toLowerCase().replace(/ /g, "-") } },
    },
  }));
  operations.push({ insertOne: { document: { _id: "log", published: drafts.length } } });
  await articles.bulkWrite(operations);
  return drafts.length;
};
