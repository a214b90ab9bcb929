exports = async () => {
  const db = context.services.get("mongodb-atlas").db("app");
  const names = ["notes", "files"];
  const results = await Promise.all(names.map((name) => db.collection(name).deleteMany({ owner: context.user.id })));
  return names.reduce((all, name, i) => Object.assign(all, { [name]: results[i].deletedCount }), {});
};
