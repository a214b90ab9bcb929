"use strict";

const { assert } = require("./assert.js");

/** The authentication providers, by their types. */
const ProviderType = Object.freeze({
  AnonUser: "anon-user",
  ApiKey: "api-key",
  LocalUserPass: "local-userpass",
  CustomFunction: "custom-function",
  CustomToken: "custom-token",
  OAuth2Google: "oauth2-google",
  OAuth2Facebook: "oauth2-facebook",
  OAuth2Apple: "oauth2-apple",
});

/** Credentials for a log-in. Opaque: only a log-in can read them. */
class Credentials {
  #parameters;

  constructor(parameters) {
    this.#parameters = parameters;
  }

  /** Returns the parameters of a log-in with these credentials. */
  static parameters(credentials) {
    if (typeof credentials !== "object" || credentials === null || !(#parameters in credentials)) {
      assert.object(credentials, "credentials");
      throw new Error("Expected 'credentials' to be made by one of the methods of Credentials");
    }
    return credentials.#parameters;
  }

  static anonymous(reuse = true) {
    return new Credentials({ provider: ProviderType.AnonUser, payload: {}, reuse: Boolean(reuse) });
  }

  static emailPassword(emailOrObject, password) {
    const given = typeof emailOrObject === "object" && emailOrObject !== null;
    const { email, password: secret } = given ? emailOrObject : { email: emailOrObject, password };
    const payload = { username: assert.string(email, "email"), password: assert.string(secret, "password") };
    return new Credentials({ provider: ProviderType.LocalUserPass, payload });
  }

  static apiKey(key) {
    return new Credentials({ provider: ProviderType.ApiKey, payload: { key: assert.string(key, "key") } });
  }

  static apple(token) {
    return new Credentials({
      provider: ProviderType.OAuth2Apple,
      payload: { id_token: assert.string(token, "token") },
    });
  }

  static facebook(token) {
    const payload = { accessToken: assert.string(token, "token") };
    return new Credentials({ provider: ProviderType.OAuth2Facebook, payload });
  }

  static google(tokenObject) {
    const { authCode, idToken } = assert.object(tokenObject, "tokenObject");
    if (authCode !== undefined && idToken !== undefined) {
      throw new Error("Must not supply both an authCode or idToken field");
    }
    if (authCode === undefined && idToken === undefined) {
      throw new Error("Must supply either an authCode or idToken field");
    }
    const payload =
      authCode === undefined
        ? { id_token: assert.string(idToken, "idToken") }
        : { authCode: assert.string(authCode, "authCode") };
    return new Credentials({ provider: ProviderType.OAuth2Google, payload });
  }

  static jwt(token) {
    return new Credentials({ provider: ProviderType.CustomToken, payload: { token: assert.string(token, "token") } });
  }

  static function(payload) {
    return new Credentials({ provider: ProviderType.CustomFunction, payload: assert.object(payload, "payload") });
  }
}

module.exports = { Credentials, ProviderType };
