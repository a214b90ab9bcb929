"use strict";

const fs = require("node:fs");
const path = require("node:path");
const bson = require("bson");
const {
  PASSWORD,
  Realm,
  customDataOf,
  logInNew,
  openApp,
  openKept,
  temporaryDirectory,
  writeDefinition,
} = require("./helpers.js");

const { Credentials, MetadataMode, ProviderType, UserState } = Realm;

describe("logging in", () => {
  test("an unknown user and a wrong password cause the same error", async () => {
    const app = await openApp();
    await app.emailPasswordAuth.registerUser({ email: "a@example.com", password: PASSWORD });
    for (const credentials of [
      Credentials.emailPassword("a@example.com", "wrong one"),
      Credentials.emailPassword("b@example.com", PASSWORD),
    ]) {
      await expect(app.logIn(credentials)).rejects.toMatchObject({
        message: "unauthorized",
        code: 4349,
        errorCode: "InvalidPassword",
      });
    }
    expect(app.currentUser).toBeNull();
  });

  test("rejects invalid registrations", async () => {
    const { emailPasswordAuth } = await openApp();
    const register = (email, password) => emailPasswordAuth.registerUser({ email, password });
    await expect(register("a@example.com", "12345")).rejects.toThrow("password must be between 6 and 128 characters");
    await register("a@example.com", PASSWORD);
    await expect(register("a@example.com", PASSWORD)).rejects.toMatchObject({
      message: "name already in use",
      code: 4348,
    });
    await expect(register("a@example.com")).rejects.toThrow("Expected 'password' to be a string, got undefined");
    await expect(emailPasswordAuth.registerUser()).rejects.toThrow("Expected 'details' to be an object, got undefined");
  });

  test("rejects invalid credentials when they are created", async () => {
    expect(() => Credentials.emailPassword({})).toThrow("Expected 'email' to be a string, got undefined");
    expect(() => Credentials.emailPassword({ email: "a@example.com" })).toThrow(
      "Expected 'password' to be a string, got undefined",
    );
    expect(() => Credentials.google({ authCode: "a", idToken: "b" })).toThrow(
      "Must not supply both an authCode or idToken field",
    );
    expect(() => Credentials.google({})).toThrow("Must supply either");
    await expect((await openApp()).logIn({ provider: "anon-user" })).rejects.toThrow(
      "made by one of the methods of Credentials",
    );
    await expect((await openApp()).logIn()).rejects.toThrow("Expected 'credentials' to be an object, got undefined");
    expect(JSON.stringify(Credentials.emailPassword("a@example.com", PASSWORD))).toBe("{}");
  });

  test("rejects a provider that is not enabled", async () => {
    const definition = writeDefinition({
      "auth/providers.json": { "anon-user": { disabled: true }, "api-key": { disabled: false } },
    });
    const app = await openApp({ definition });
    const all = [
      Credentials.anonymous(),
      Credentials.emailPassword("a@example.com", PASSWORD),
      Credentials.apiKey("x"),
      Credentials.jwt("x"),
      Credentials.function({}),
      Credentials.google({ idToken: "x" }),
      Credentials.facebook("x"),
      Credentials.apple("x"),
    ];
    for (const credentials of all) {
      await expect(app.logIn(credentials)).rejects.toMatchObject({ code: 4316, errorCode: "AuthProviderNotFound" });
    }
    await expect(
      app.emailPasswordAuth.registerUser({ email: "a@example.com", password: PASSWORD }),
    ).rejects.toMatchObject({ code: 4316 });
  });

  test("rejects registration if the user would have to be confirmed by mail", async () => {
    const definition = writeDefinition({
      "auth/providers.json": {
        "local-userpass": { disabled: false, config: { autoConfirm: false, emailConfirmationUrl: "https://x" } },
      },
    });
    const { emailPasswordAuth } = await openApp({ definition });
    await expect(emailPasswordAuth.registerUser({ email: "a@example.com", password: PASSWORD })).rejects.toThrow(
      'failed to confirm user "a@example.com"',
    );
  });

  test("reuses an anonymous user who is logged in", async () => {
    const app = await openApp();
    const one = await app.logIn(Credentials.anonymous());
    expect((await app.logIn(Credentials.anonymous())).id).toBe(one.id);
    expect((await app.logIn(Credentials.anonymous(false))).id).not.toBe(one.id);
    await one.logOut();
    expect(one.state).toBe(UserState.Removed);
    expect(Object.keys(app.allUsers)).not.toContain(one.id);
  });
});

describe("a user", () => {
  test("has the SDK's properties", async () => {
    const app = await openApp();
    const user = await logInNew(app);
    expect(user.id).toMatch(/^[0-9a-f]{24}$/);
    expect(user).toBeInstanceOf(Realm.User);
    expect(user.app).toBe(app);
    expect(user.state).toBe("LoggedIn");
    expect(user.isLoggedIn).toBe(true);
    expect(user.providerType).toBe(ProviderType.LocalUserPass);
    expect(user.identities).toEqual([{ id: expect.any(String), providerType: "local-userpass" }]);
    expect(user.profile).toEqual({ email: expect.stringContaining("@example.com") });
    expect(user.deviceId).toMatch(/^[0-9a-f]{24}$/);
    expect(JSON.stringify(user)).toBe("{}");
    expect(app.currentUser).not.toBe(app.currentUser);
    expect(app.currentUser.id).toBe(user.id);
    const [header, payload] = user.accessToken
      .split(".")
      .slice(0, 2)
      .map((part) => JSON.parse(Buffer.from(part, "base64url").toString()));
    expect(header).toMatchObject({ alg: "EdDSA", typ: "JWT" });
    expect(payload).toMatchObject({ sub: user.id, typ: "access", baas_device_id: user.deviceId });
    expect(payload.exp - payload.iat).toBe(1800);
    const refresh = JSON.parse(Buffer.from(user.refreshToken.split(".")[1], "base64url").toString());
    expect(refresh).toMatchObject({ sub: user.id, typ: "refresh", baas_id: payload.iss });
    expect(refresh.exp - refresh.iat).toBe(60 * 24 * 60 * 60);
  });

  test("is logged out locally before the backend responds", async () => {
    const app = await openApp();
    const user = await logInNew(app);
    const done = user.logOut();
    expect(app.currentUser).toBeNull();
    expect([user.isLoggedIn, user.state, user.accessToken, user.refreshToken, user.customData]).toEqual([
      false,
      "LoggedOut",
      "",
      "",
      {},
    ]);
    await done;
    await user.logOut();
    expect(Object.keys(app.allUsers)).toEqual([user.id]);
    await expect(customDataOf(user).findOne()).rejects.toMatchObject({ message: "unauthorized", code: 4301 });
    await expect(user.refreshCustomData()).rejects.toMatchObject({ message: "The user is not logged in", code: 4101 });
    await expect(app.deleteUser(user)).rejects.toMatchObject({
      message: "User must be logged in to be deleted.",
      code: 4101,
    });
    await expect(user.linkCredentials(Credentials.jwt("x"))).rejects.toMatchObject({
      message: "The specified user is not logged in.",
      code: 4101,
    });
    expect(() => app.switchUser(user)).toThrow("User is no longer valid or is logged out");
  });

  test("can be switched to, removed and deleted", async () => {
    const app = await openApp();
    const one = await logInNew(app);
    const two = await logInNew(app);
    const three = await logInNew(app);
    expect(app.currentUser.id).toBe(three.id);
    app.switchUser(one);
    expect(app.currentUser.id).toBe(one.id);
    expect(Object.keys(app.allUsers)).toEqual([one.id, two.id, three.id]);

    const removing = app.removeUser(one);
    expect([app.currentUser.id, one.state]).toEqual([two.id, "Removed"]);
    await removing;
    await expect(app.removeUser(one)).rejects.toMatchObject({ message: "User has already been removed", code: 4100 });
    await app.deleteUser(two);
    expect(Object.keys(app.allUsers)).toEqual([three.id]);
    expect(two.state).toBe("Removed");
    await expect(app.logIn(Credentials.emailPassword(two.profile.email, PASSWORD))).rejects.toThrow("unauthorized");
    await app.emailPasswordAuth.registerUser({ email: two.profile.email, password: PASSWORD });
    expect((await app.logIn(Credentials.emailPassword(two.profile.email, PASSWORD))).id).not.toBe(two.id);

    const stranger = await logInNew(await openApp());
    const switching = async () => app.switchUser(stranger);
    await expect(switching()).rejects.toMatchObject({ message: "User does not exist", code: 4100 });
    await expect(app.removeUser(stranger)).rejects.toMatchObject({ code: 4100 });
    await expect(app.deleteUser({})).rejects.toThrow("Expected 'user' to be a User");
    expect(() => app.switchUser(undefined)).toThrow("Expected 'user' to be an object, got undefined");
  });
});

describe("listeners", () => {
  test("are called as often as the SDK's, before promises resolve", async () => {
    const app = await openApp();
    const heard = jest.fn();
    app.addListener(heard);
    expect(() => app.addListener(heard)).toThrow("Remove callback before adding it again");
    const user = await logInNew(app);
    expect(heard).toHaveBeenCalledTimes(1);
    const userHeard = jest.fn();
    user.addListener(userHeard);
    await user.refreshCustomData();
    expect([heard.mock.calls.length, userHeard.mock.calls.length]).toEqual([1, 1]);
    const done = user.logOut();
    expect(userHeard).toHaveBeenCalledTimes(2);
    expect(heard).toHaveBeenCalledTimes(1);
    await done;
    expect(heard).toHaveBeenCalledTimes(2);
    await app.logIn(Credentials.anonymous());
    expect(heard).toHaveBeenCalledTimes(3);
    app.removeListener(heard);
    app.removeListener(() => {});
    user.removeAllListeners();
    await app.logIn(Credentials.emailPassword(user.profile.email, PASSWORD));
    expect([heard.mock.calls.length, userHeard.mock.calls.length]).toEqual([3, 2]);
    app.addListener(heard);
    app.switchUser(app.currentUser);
    expect(heard).toHaveBeenCalledTimes(4);
    app.removeAllListeners();
    app.switchUser(app.currentUser);
    expect(heard).toHaveBeenCalledTimes(4);
  });

  test("see the new current user", async () => {
    const app = await openApp();
    const seen = [];
    app.addListener(() => seen.push(app.currentUser?.id ?? null));
    const user = await logInNew(app);
    await user.logOut();
    expect(seen).toEqual([user.id, null]);
  });
});

describe("stored sessions", () => {
  const key = (byte) => new Uint8Array(64).fill(byte).buffer;

  test.each([
    ["the default", undefined, true],
    [MetadataMode.NoEncryption, { mode: MetadataMode.NoEncryption }, true],
    [MetadataMode.Encryption, { mode: MetadataMode.Encryption, encryptionKey: key(1) }, true],
    [MetadataMode.InMemory, { mode: MetadataMode.InMemory }, false],
    [MetadataMode.NoMetadata, { mode: MetadataMode.NoMetadata }, false],
  ])("metadata mode: %s", async (_name, metadata, kept) => {
    const directory = temporaryDirectory();
    const app = await openKept(directory, { metadata });
    const user = await logInNew(app);
    await app.close();
    const reopened = await openKept(directory, { metadata });
    expect(reopened.currentUser?.id).toBe(kept ? user.id : undefined);
    expect(fs.existsSync(path.join(directory, ".userkeep/test-app.session"))).toBe(kept);
  });

  test("a wrong encryption key is an error, and does not change the file", async () => {
    const directory = temporaryDirectory();
    const file = path.join(directory, ".userkeep/test-app.session");
    const open = (byte) =>
      openKept(directory, { metadata: { mode: MetadataMode.Encryption, encryptionKey: key(byte) } });
    const app = await open(1);
    await logInNew(app);
    await app.close();
    const bytes = fs.readFileSync(file);
    await expect(open(2)).rejects.toThrow("the encryption key is not the one");
    await expect(openKept(directory)).rejects.toThrow("is encrypted");
    expect(fs.readFileSync(file).equals(bytes)).toBe(true);
    expect((await open(1)).currentUser.isLoggedIn).toBe(true);
  });

  test("a rejected access token is refreshed once, and the call is repeated", async () => {
    const directory = temporaryDirectory();
    const file = path.join(directory, ".userkeep/test-app.session");
    const app = await openKept(directory);
    const user = await logInNew(app);
    await customDataOf(user).insertOne({ userId: user.id, favoriteColor: "pink" });
    await app.close();

    // A forged signature has the same effect as expiry: the backend responds with 401
    // InvalidSession.
    const kept = bson.deserialize(fs.readFileSync(file).subarray(4));
    const [header, payload] = kept.users[0].access_token.split(".");
    kept.users[0].access_token = `${header}.${payload}.${"A".repeat(86)}`;
    fs.writeFileSync(file, Buffer.concat([Buffer.from("UKS0"), bson.serialize(kept)]));

    const reopened = await openKept(directory);
    const again = reopened.currentUser;
    const heard = jest.fn();
    again.addListener(heard);
    expect(again.customData).toEqual({});
    const found = await Promise.all([1, 2, 3].map(() => customDataOf(again).findOne()));
    expect(found.map((document) => document.favoriteColor)).toEqual(["pink", "pink", "pink"]);
    expect(heard).toHaveBeenCalledTimes(1);
    expect(again.customData.favoriteColor).toBe("pink");
    expect(again.accessToken).not.toBe(kept.users[0].access_token);

    // If the session has ended, the call rejects with its own error and the user stays logged in.
    kept.users[0].refresh_token = kept.users[0].access_token;
    await reopened.close();
    fs.writeFileSync(file, Buffer.concat([Buffer.from("UKS0"), bson.serialize(kept)]));
    const last = (await openKept(directory)).currentUser;
    await expect(customDataOf(last).findOne()).rejects.toMatchObject({ message: "unauthorized" });
    expect(last.isLoggedIn).toBe(true);
  });

  test("a damaged file is an error with its path, and is not changed", async () => {
    const directory = temporaryDirectory();
    const file = path.join(directory, ".userkeep/test-app.session");
    fs.mkdirSync(path.dirname(file));
    for (const contents of ["", "UKS0", "something else", "UKS0\x05\0\0\0\0"]) {
      fs.writeFileSync(file, contents);
      await expect(openKept(directory)).rejects.toThrow(file);
      expect(fs.readFileSync(file, "utf8")).toBe(contents);
    }
  });
});
