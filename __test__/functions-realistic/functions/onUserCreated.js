exports = async function onUserCreated(user) {
  const profiles = context.services.get("mongodb-atlas").db("app").collection("profiles");
  try {
    await profiles.insertOne({ _id: user.id, email: user.data.email.toLowerCase(), plan: "free" });
  } catch (e) {
    console.error(`profile of ${user.id}: ${e.message}`);
    throw e;
  }
};
