const crypto = require("crypto");

const isSigned = (text, signature) => {
  const expected = crypto.createHmac("sha256", context.values.get("webhookSecret")).update(text).digest("hex");
  return expected === signature;
};

exports = async ({ body, headers }) => {
  const [signature] = headers["X-Signature"] || [];
  if (!isSigned(body, signature)) {
    return { statusCode: 401 };
  }
  const event = JSON.parse(body);
  const payments = context.services.get("mongodb-atlas").db("app").collection("payments");
  // The provider repeats its requests.
  if (await payments.findOne({ _id: event.id })) {
    return { statusCode: 200, repeated: true };
  }
  await payments.insertOne({ _id: event.id, order: event.order, cents: event.cents });
  await payments.updateOne({ _id: event.id }, { $set: { receivedBy: context.user.type } });
  return { statusCode: 200 };
};
