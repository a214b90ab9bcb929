"use strict";

// Runs hooks through the unmodified realm-web 2.0.1.

const RealmWeb = require("realm-web");
const { getEnvironment, setEnvironment } = RealmWeb;
const { PASSWORD, serve } = require("./helpers.js");
const { INSERT_CUSTOM_DATA, RECORD, writeHooks } = require("./hooks-definition.js");

const { Credentials } = RealmWeb;
const email = "ada@example.com";

async function openWeb(hooks) {
  const { url } = await serve({ app: "web-app", definition: writeHooks(hooks) });
  return new RealmWeb.App({ id: "web-app", baseUrl: url });
}

beforeEach(() => {
  // realm-web has one storage for the users of the whole process; each test gets a new one.
  const { defaultStorage } = getEnvironment();
  setEnvironment({ ...getEnvironment(), defaultStorage: new defaultStorage.constructor() });
});

const pending = `exports = async (event) => { ${RECORD} return { status: "pending" }; };`;

/** Returns what the hooks recorded, as an anonymous user reads it. */
async function eventsOf(app) {
  const reader = await app.logIn(Credentials.anonymous());
  const calls = await reader.functions.calls();
  await app.removeUser(reader);
  return calls.map(({ event }) => event);
}

test("logs in with a function, and finds the custom data of the creation function", async () => {
  const app = await openWeb({
    authentication: `exports = ({ username }) => {
      if (username === undefined) throw new Error("Authentication failed");
      const { remoteIPAddress, action } = context.request;
      if (action !== "authentication") throw new Error(action);
      return { id: username, name: username + " at " + remoteIPAddress };
    };`,
    creation: INSERT_CUSTOM_DATA,
  });
  const user = await app.logIn(Credentials.function({ username: "ada" }));
  expect(user.profile).toEqual({ name: expect.stringMatching(/^ada at (::ffff:)?127\.0\.0\.1$/) });
  expect(user.identities).toEqual([{ id: "ada", providerType: "custom-function" }]);
  expect(user.customData).toMatchObject({ userId: user.id, role: "member" });
  await expect(app.logIn(Credentials.function({}))).rejects.toMatchObject({
    error: "Authentication failed",
    errorCode: "AuthError",
    statusCode: 401,
  });
});

test("confirms a user with the token, and retries the confirmation function", async () => {
  const app = await openWeb({ confirmation: pending });
  const auth = app.emailPasswordAuth;
  await auth.registerUser({ email, password: PASSWORD });
  await expect(app.logIn(Credentials.emailPassword(email, PASSWORD))).rejects.toMatchObject({
    error: "confirmation required",
    errorCode: "AuthError",
    statusCode: 401,
  });
  await auth.retryCustomConfirmation({ email });
  const [, { token, tokenId }] = await eventsOf(app);
  await expect(auth.resendConfirmationEmail({ email })).rejects.toMatchObject({
    error: "please use confirm via function",
    statusCode: 400,
  });
  await auth.confirmUser({ token, tokenId });
  expect((await app.logIn(Credentials.emailPassword(email, PASSWORD))).isLoggedIn).toBe(true);
  await expect(auth.confirmUser({ token, tokenId })).rejects.toMatchObject({ errorCode: "UserpassTokenInvalid" });
});

test("calls the reset function with arguments, and completes a reset", async () => {
  const app = await openWeb({
    reset: pending.replace("(event)", "(event, ...rest)").replace("{", "{ event.rest = rest;"),
  });
  const auth = app.emailPasswordAuth;
  await auth.registerUser({ email, password: PASSWORD });
  await auth.callResetPasswordFunction({ email, password: "n3w passw0rd" }, "a", 42);
  await expect(auth.sendResetPasswordEmail({ email })).rejects.toMatchObject({
    error: "please use reset password via function",
    statusCode: 400,
  });
  const [{ token, tokenId, ...event }] = await eventsOf(app);
  expect(event).toEqual({ username: email, password: "n3w passw0rd", currentPasswordValid: false, rest: ["a", 42] });
  await auth.resetPassword({ token, tokenId, password: "n3w passw0rd" });
  expect((await app.logIn(Credentials.emailPassword(email, "n3w passw0rd"))).isLoggedIn).toBe(true);
});

test("gets the text of a failed reset without a code", async () => {
  const app = await openWeb({ reset: 'exports = () => ({ status: "fail" });' });
  await app.emailPasswordAuth.registerUser({ email, password: PASSWORD });
  const reset = app.emailPasswordAuth.callResetPasswordFunction({ email, password: "n3w passw0rd" });
  await expect(reset).rejects.toMatchObject({
    error: `failed to reset password for user "${email}"`,
    errorCode: undefined,
    statusCode: 400,
  });
});
