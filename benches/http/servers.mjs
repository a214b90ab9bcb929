// The servers under comparison, each in its own process: `fork("servers.mjs", [name])`. A server
// sends its parent its URL and the requests of the clients, and its CPU usage in response to every
// message.
import crypto from "node:crypto";
import http from "node:http";
import { fileURLToPath } from "node:url";
import Realm from "userkeep";

const DEFINITION = fileURLToPath(new URL("../../examples/quickstart/userkeep", import.meta.url));
const DATABASE = "custom-user-data-database";
const COLLECTION = "custom-user-data";
const EMAIL = "bench@example.com";
const PASSWORD = "passw0rd";

const profile = (userId) => ({
  userId,
  favoriteColor: "pink",
  name: "Ada Lovelace",
  visits: 3,
  address: { street: "12 Example Street", city: "London", zip: "N1 9GU" },
  tags: ["alpha", "beta", "gamma"],
});

/**
 * Starts a server with a handler that receives the complete body of a request; resolves to its
 * URL.
 */
function listen(handle) {
  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      const body = handle(request, Buffer.concat(chunks).toString());
      response.writeHead(200, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) });
      response.end(body);
    });
  });
  server.keepAliveTimeout = 60_000;
  return new Promise((resolve) =>
    server.listen(0, "127.0.0.1", () => resolve(`http://127.0.0.1:${server.address().port}`)),
  );
}

async function userkeep(options) {
  const server = await Realm.serve({
    app: "bench",
    definition: DEFINITION,
    store: "memory:",
    port: 0,
    logger: null,
    ...options,
  });
  const api = `${server.url}/api/client/v2.0`;
  const post = async (url, body, token) => {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
    return answer.json();
  };
  const provider = `${api}/app/bench/auth/providers/local-userpass`;
  await post(`${provider}/register`, { email: EMAIL, password: PASSWORD });
  const session = await post(`${provider}/login`, { username: EMAIL, password: PASSWORD });
  const call = (name, argument) => ({
    name,
    service: "mongodb-atlas",
    arguments: [{ database: DATABASE, collection: COLLECTION, ...argument }],
  });
  const query = { userId: session.user_id };
  const document = profile(session.user_id);
  await post(`${api}/app/bench/functions/call`, call("insertOne", { document }), session.access_token);
  const update = { $set: { favoriteColor: "blue" }, $inc: { visits: { $numberInt: "1" } } };
  const [access, refresh] = [session.access_token, session.refresh_token];
  const functions = "/api/client/v2.0/app/bench/functions/call";
  return {
    url: server.url,
    findOne: { path: functions, token: access, body: JSON.stringify(call("findOne", { query })) },
    updateOne: { path: functions, token: access, body: JSON.stringify(call("updateOne", { query, update })) },
    refresh: { path: "/api/client/v2.0/auth/session", token: refresh, body: "" },
    logIn: { path: "/api/client/v2.0/app/bench/auth/providers/local-userpass/login" },
  };
}

const servers = {
  /** Userkeep with a store in memory, like the other servers. */
  userkeep: () => userkeep(),

  /** Userkeep without a rate limit per address. */
  "userkeep unlimited": () => userkeep({ unlimited: "127.0.0.1" }),

  /** A node:http server that returns a constant body. */
  async canned() {
    const body = JSON.stringify({ _id: { $oid: "63c1b2a1f0e1d2c3b4a59687" }, ...profile("63c1b2a1f0e1d2c3b4a59686") });
    const url = await listen(() => body);
    const request = { path: "/", token: "x".repeat(400), body: JSON.stringify({ name: "findOne", arguments: [{}] }) };
    return { url, findOne: request, updateOne: request, refresh: { ...request, body: "" } };
  },

  /**
   * A node:http server that does the same work: verifies tokens, looks up the document, and signs.
   */
  async "same work"() {
    const { privateKey, publicKey } = crypto.generateKeyPairSync("ed25519");
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const sign = (claims) => {
      const text = `${part({ typ: "JWT", alg: "EdDSA", kid: "k" })}.${part(claims)}`;
      return `${text}.${crypto.sign(null, Buffer.from(text), privateKey).toString("base64url")}`;
    };
    const verify = (token) => {
      const end = token.lastIndexOf(".");
      const signature = Buffer.from(token.slice(end + 1), "base64url");
      if (!crypto.verify(null, Buffer.from(token.slice(0, end)), publicKey, signature)) {
        throw new Error("forged");
      }
      const claims = JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
      if (claims.exp < Date.now() / 1000) {
        throw new Error("expired");
      }
      return claims;
    };
    const userId = "63c1b2a1f0e1d2c3b4a59686";
    const documents = new Map([[userId, { _id: { $oid: "63c1b2a1f0e1d2c3b4a59687" }, ...profile(userId) }]]);
    const claims = () => {
      const now = Math.floor(Date.now() / 1000);
      return { sub: userId, iss: "s", baas_device_id: "d", baas_domain_id: "e", iat: now, exp: now + 1800 };
    };
    const url = await listen((request, body) => {
      const { sub } = verify(request.headers.authorization.slice("Bearer ".length));
      const document = documents.get(sub);
      if (request.url === "/session") {
        return JSON.stringify({ access_token: sign({ ...claims(), user_data: document }) });
      }
      const [argument] = JSON.parse(body).arguments;
      if (argument.update) {
        document.favoriteColor = argument.update.$set.favoriteColor;
        document.visits += 1;
        return JSON.stringify({ matchedCount: 1, modifiedCount: 1 });
      }
      return JSON.stringify(document);
    });
    const token = sign(claims());
    const call = (argument) => ({ path: "/call", token, body: JSON.stringify({ arguments: [argument] }) });
    return {
      url,
      findOne: call({ query: { userId } }),
      updateOne: call({ query: { userId }, update: { $set: { favoriteColor: "blue" } } }),
      refresh: { path: "/session", token, body: "" },
    };
  },
};

process.on("message", () => process.send(process.cpuUsage()));
process.on("disconnect", () => process.exit());
process.send(await servers[process.argv[2]]());
