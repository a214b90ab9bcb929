"use strict";

// Duplicate field names, and values that a client could not decode. JavaScript objects cannot have
// duplicate names, so these are sent as text.

const fs = require("node:fs");
const path = require("node:path");
const {
  PASSWORD,
  Realm,
  logInNew,
  openApp,
  openDefinition,
  openEmbedded,
  readAndWriteAll,
  rulesFile,
  serve,
  writeDefinition,
} = require("../helpers.js");

const { BSON } = Realm;

/**
 * Starts a server that allows everything, and returns functions that send hand-written bodies to
 * it.
 */
async function openServer() {
  const { url } = await serve({ definition: openDefinition() });
  const app = `${url}/api/client/v2.0/app/test-app`;
  const post = async (route, body, token) => {
    const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
    const answer = await fetch(`${app}${route}`, { method: "POST", headers, body });
    const text = await answer.text();
    return { status: answer.status, body: text === "" ? undefined : JSON.parse(text) };
  };
  const { access_token: token } = (await post("/auth/providers/anon-user/login", "{}")).body;
  const call = (body) => post("/functions/call", body, token);
  const withArgument = (name, rest) =>
    call(`{"name":"${name}","service":"mongodb-atlas","arguments":[{"database":"db","collection":"c"${rest}}]}`);
  const stored = async () => (await withArgument("find", "")).body;
  return { call, post, stored, withArgument };
}

describe("a duplicate field name", () => {
  test("is rejected in arguments at any depth, and nothing is stored", async () => {
    const { stored, withArgument } = await openServer();
    const many = Array.from({ length: 1000 }, (_, index) => `"f${index}":1`).join(",");
    for (const [name, rest, field] of [
      ["insertOne", ',"document":{"isAdmin":false,"isAdmin":true}', "isAdmin"],
      ["insertOne", ',"document":{"isAdmin":false,"\\u0069sAdmin":true}', "isAdmin"],
      ["insertOne", ',"document":{"a":[{},{"b":{"x":1,"y":2,"x":3}}]}', "a.1.b.x"],
      ["insertOne", `,"document":{${many},"f500":2}`, "f500"],
      ["insertMany", ',"documents":[{"a":1},{"a":1,"a":2}]', "documents.1.a"],
      ["updateOne", ',"query":{},"update":{"$set":{"a":1,"a":2}},"upsert":true', "update.$set.a"],
      ["updateOne", ',"query":{},"update":{"$set":{"a":1},"$set":{"b":2}},"upsert":true', "update.$set"],
      ["updateOne", ',"query":{"a":1,"a":2},"update":{"$set":{"b":1}},"upsert":true', "query.a"],
      ["aggregate", ',"pipeline":[{"$match":{"a":1,"a":2}}]', "pipeline.0.$match.a"],
      ["insertOne", ',"document":{"a":1},"document":{"b":1}', "document"],
      ["insertOne", ',"collection":"d","document":{}', "collection"],
    ]) {
      const answer = await withArgument(name, rest);
      expect(answer).toMatchObject({ status: 400, body: { error: expect.stringMatching(/there twice$/) } });
      expect(answer.body.error).toContain(`${field}'`);
    }
    expect(await stored()).toEqual([]);
  });

  test("is rejected in the request around the arguments", async () => {
    const { call, post } = await openServer();
    for (const body of [
      '{"name":"find","service":"mongodb-atlas","arguments":[],"name":"deleteMany"}',
      '{"name":"find","service":"none","arguments":[],"service":"mongodb-atlas"}',
      '{"name":"find","service":"mongodb-atlas","arguments":[],"arguments":[{}]}',
    ]) {
      expect(await call(body)).toMatchObject({ status: 400, body: { error: expect.stringContaining("there twice") } });
    }
    const login = '{"username":"a@example.com","password":"secret-one","username":"b@example.com"}';
    const answer = await post("/auth/providers/local-userpass/login", login);
    expect(answer).toMatchObject({ status: 400, body: { error: "the field 'username' is there twice" } });
    expect(
      await post(
        "/auth/providers/local-userpass/register",
        `{"email":"a@example.com","email":"b@example.com","password":"${PASSWORD}"}`,
      ),
    ).toMatchObject({ status: 400, body: { error: "the field 'email' is there twice" } });
  });

  test("is rejected in every file of a definition, with its path", () => {
    const withText = (file, text) => {
      const definition = writeDefinition();
      fs.mkdirSync(path.dirname(path.join(definition, file)), { recursive: true });
      fs.writeFileSync(path.join(definition, file), text);
      return definition;
    };
    const role = (more) => `{ "roles": [{ "name": "r", "apply_when": {}, "read": true, ${more} }] }`;
    for (const [file, text, place] of [
      [rulesFile("db", "c"), role('"write": false, "write": true'), "$.roles[0].write"],
      [rulesFile("db", "c"), role('"write": { "a": 1, "b": 1, "a": 2 }'), "$.roles[0].write.a"],
      [rulesFile("db", "c"), '{ "roles": [], "roles": [] }', "$.roles"],
      ["auth/providers.json", '{ "anon-user": { "disabled": true, "disabled": false } }', "$.anon-user.disabled"],
      ["environments/no-environment.json", '{ "values": { "a": 1, "a": 2 } }', "$.values.a"],
      ["data_sources/mongodb-atlas/db/c/indexes.json", '[{ "key": { "a": 1, "a": -1 } }]', "$[0].key.a"],
    ]) {
      expect(() => openEmbedded({ definition: withText(file, text) })).toThrow(
        `${file} at ${place}: the name is there twice`,
      );
    }
  });

  test("may appear in different documents", async () => {
    const app = await openApp({ definition: openDefinition() });
    const user = await logInNew(app);
    const collection = user.mongoClient("mongodb-atlas").db("db").collection("c");
    const document = { _id: 1, a: { a: { a: [{ a: 1 }, { a: 2 }] } }, A: 1, "": 2 };
    await collection.insertOne(document);
    expect(await collection.find()).toEqual([document]);
  });
});

describe("a value that clients cannot decode", () => {
  test("is rejected over HTTP, and stored documents stay readable", async () => {
    const { stored, withArgument } = await openServer();
    for (const [rest, status] of [
      [',"document":{"a":{"$regularExpression":{"pattern":"a","options":"zq"}}}', 400],
      [',"document":{"a":[{"$regularExpression":{"pattern":"a","options":"I"}}]}', 400],
      [',"document":{"a":{"$regex":"a","$options":"q"}}', 400],
      [',"document":{"a":{"b":1,"$oid":"x"}}', 400],
      [',"document":{"_id":1,"a":{"$regularExpression":{"pattern":"a","options":"imsux"}}}', 200],
    ]) {
      expect(await withArgument("insertOne", rest)).toMatchObject({ status });
    }
    expect(await stored()).toHaveLength(1);
  });

  test("is rejected in a document and in an update", async () => {
    const app = await openApp({
      definition: writeDefinition({ [rulesFile("db", "c")]: { roles: [readAndWriteAll] } }),
    });
    const user = await logInNew(app);
    const collection = user.mongoClient("mongodb-atlas").db("db").collection("c");
    const pattern = new BSON.BSONRegExp("a", "i");
    pattern.options = "zq";
    await expect(collection.insertOne({ a: { b: pattern } })).rejects.toThrow();
    await expect(collection.insertOne({ a: JSON.parse('{"$regex":"a","$options":"q"}') })).rejects.toThrow();
    // Over HTTP, clients would decode these as a BSON type or fail.
    await expect(collection.insertOne({ a: { b: 1, $oid: "x" } })).rejects.toThrow("Extended JSON");
    await collection.insertOne({ _id: 1, b: "x" });
    for (const update of [
      { $set: { "a.$oid": "x" } },
      { $rename: { b: "a.$oid" } },
      { $set: { a: { b: [pattern] } } },
    ]) {
      await expect(collection.updateOne({ _id: 1 }, update)).rejects.toThrow();
    }
    await expect(
      collection.updateOne({ "d.$oid": "x" }, { $setOnInsert: { c: 1 } }, { upsert: true }),
    ).rejects.toThrow();
    expect(await collection.find()).toEqual([{ _id: 1, b: "x" }]);
  });
});
