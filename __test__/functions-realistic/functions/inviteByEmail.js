exports = async (email) => {
  if (typeof email !== "string" || !email.includes("@")) {
    return { status: "invalid" };
  }
  const invitations = context.services.get("mongodb-atlas").db("app").collection("invitations");
  const key = context.values.get("mailKey");
  const response = await context.http.post({
    url: `${context.values.get("mailUrl")}/send`,
    headers: { Authorization: [`Bearer ${key}`] },
    body: { to: email, subject: `${context.user.data.email} invites you` },
    encodeBodyAsJSON: true,
  });
  if (response.statusCode !== 202) {
    console.error("mail was not accepted", response.statusCode);
    return { status: "failed" };
  }
  await invitations.insertOne({ email, from: context.user.id, accepted: false });
  return { status: "sent" };
};
