"use strict";

// The SDK's other methods exist, and reject with the SDK's error for a disabled feature.

const { PASSWORD, Realm, logInNew, openApp } = require("./helpers.js");

test("e-mail/password methods reject with the errors of the SDK", async () => {
  const app = await openApp();
  const { email } = (await logInNew(app)).profile;
  const auth = app.emailPasswordAuth;
  await expect(auth.confirmUser({ token: "t", tokenId: "i" })).rejects.toMatchObject({
    message: "invalid token data",
    code: 4347,
  });
  await expect(auth.resendConfirmationEmail({ email })).rejects.toMatchObject({
    message: "already confirmed",
    code: 4343,
  });
  await expect(auth.resendConfirmationEmail({ email: "b@example.com" })).rejects.toMatchObject({
    message: "user not found",
    code: 4344,
  });
  await expect(auth.retryCustomConfirmation({ email })).rejects.toThrow(
    `cannot run confirmation for ${email}: automatic confirmation is enabled`,
  );
  await expect(auth.resetPassword({ password: PASSWORD, token: "t", tokenId: "i" })).rejects.toThrow(
    "invalid token data",
  );
  await expect(auth.sendResetPasswordEmail({ email })).rejects.toMatchObject({
    message: "error processing request",
    code: 4347,
  });
  await expect(auth.callResetPasswordFunction({ email, password: PASSWORD }, 1)).rejects.toMatchObject({
    message: "please use reset password via email",
    code: 4347,
  });
});

test("functions, API keys, linking and push reject with the errors of the SDK", async () => {
  const user = await logInNew(await openApp());
  await expect(user.callFunction("sum", 1, 2)).rejects.toMatchObject({
    message: "function not found: 'sum'",
    code: 4325,
  });
  await expect(user.functions.sum(1, 2)).rejects.toThrow("function not found: 'sum'");
  expect(user.functions.inspect).toBeUndefined();
  expect(typeof (await user.functions)).toBe("object");
  const id = "63c1b2a1f0e1d2c3b4a59687";
  for (const call of [
    () => user.apiKeys.create("k"),
    () => user.apiKeys.fetchAll(),
    () => user.apiKey.fetch(id),
    () => user.apiKeys.enable(id),
  ]) {
    await expect(call()).rejects.toMatchObject({ message: "authentication via 'api-key' is unsupported", code: 4316 });
  }
  await expect(user.apiKeys.fetch("x")).rejects.toThrow();
  await expect(user.linkCredentials(Realm.Credentials.emailPassword("b@example.com", PASSWORD))).rejects.toMatchObject({
    code: 4347,
  });
  await expect(user.linkCredentials(Realm.Credentials.anonymous())).rejects.toMatchObject({ code: 4105 });
  await expect(user.push("gcm").register("token")).rejects.toMatchObject({
    message: "service not found: 'gcm'",
    code: 4318,
  });
  await expect(user.push("gcm").deregister()).rejects.toThrow("service not found: 'gcm'");
});

test("checks the names of services, databases and collections", async () => {
  const user = await logInNew(await openApp());
  expect(() => user.mongoClient(1)).toThrow("Expected 'serviceName' to be a string, got a number");
  expect(() => user.mongoClient("")).toThrow("Please provide the name of the MongoDB service to connect to.");
  expect(() => user.mongoClient("x").db(1)).toThrow("Expected 'databaseName' to be a string, got a number");
  const unknown = user.mongoClient("unknown").db("d").collection("c");
  expect([unknown.serviceName, unknown.databaseName, unknown.name]).toEqual(["unknown", "d", "c"]);
  await expect(unknown.insertOne({})).rejects.toThrow("Cannot access member 'insertOne' of undefined");
});
