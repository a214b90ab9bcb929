"use strict";

const { createHash } = require("node:crypto");
const { spawnSync } = require("node:child_process");
const { once } = require("node:events");
const http = require("node:http");
const path = require("node:path");
const zlib = require("node:zlib");
const bson = require("bson");
const { makeBson } = require("../lib/functions/globals/bson.js");
const { digestAuthorization, digestChallenge } = require("../lib/functions/globals/digest.js");
const { Gate, makeHttp } = require("../lib/functions/globals/http.js");

const BSON = makeBson();
const client = makeHttp();

let server;
let origin;
let host;
/** The answers of the server, by path. Each test sets its own. */
let routes;
/** The requests that the server has received. */
let received;

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) {
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

async function answer(request, response) {
  const { pathname } = new URL(request.url, "http://server");
  const { method, url, headers, rawHeaders } = request;
  const body = await bodyOf(request);
  received.push({ method, url, headers, rawHeaders, body: body.toString("latin1") });
  const route = routes[pathname] ?? ((_request, to) => to.end("ok"));
  route(request, response, body);
}

beforeAll(async () => {
  server = http.createServer(answer).listen(0, "127.0.0.1");
  await once(server, "listening");
  host = `127.0.0.1:${server.address().port}`;
  origin = `http://${host}`;
});

beforeEach(() => {
  routes = {};
  received = [];
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
});

const invalid = (message) => expect.objectContaining({ name: "FunctionError", errorCode: "InvalidParameter", message });
const failed = (message) =>
  expect.objectContaining({ name: "FunctionError", errorCode: "HTTPError", message: expect.stringContaining(message) });

describe("the result", () => {
  test("has the documented fields", async () => {
    routes["/"] = (_request, response) => {
      response.writeHead(201, { "content-type": "text/plain", "X-API-key": ["1", "2"], ETag: "e" });
      response.end("aé");
    };
    const result = await client.get({ url: origin });
    expect(result).toMatchObject({ status: "201 Created", statusCode: 201, contentLength: 3, cookies: {} });
    expect(result.headers).toMatchObject({ "Content-Type": ["text/plain"], "X-Api-Key": ["1", "2"], Etag: ["e"] });
    expect(result.body instanceof BSON.Binary).toBe(true);
    expect([result.body.text(), result.body.toBase64(), result.body.toHex()]).toEqual(["aé", "YcOp", "61c3a9"]);
  });

  test.each(["get", "post", "put", "patch", "delete", "head"])(
    "belongs to a request with the method %s",
    async (name) => {
      const result = await client[name]({ url: `${origin}/x` });
      expect(received).toMatchObject([{ method: name.toUpperCase(), url: "/x" }]);
      expect(result.body.text()).toBe(name === "head" ? "" : "ok");
    },
  );

  test("does not reject for a status that reports an error", async () => {
    routes["/"] = (_request, response) => response.writeHead(503).end("busy");
    expect(await client.get({ url: origin })).toMatchObject({ status: "503 Service Unavailable", statusCode: 503 });
  });

  test("has the length of the header for HEAD", async () => {
    routes["/"] = (_request, response) => response.writeHead(200, { "Content-Length": 1234 }).end();
    expect(await client.head({ url: origin })).toMatchObject({ contentLength: 1234 });
  });

  test("has the cookies that the server sets", async () => {
    routes["/"] = (_request, response) => {
      response.writeHead(200, {
        "Set-Cookie": ["a=1; Path=/; HttpOnly", 'b="two words"', "c=x=y", "=none", "alone", "__proto__=p", "a=2"],
      });
      response.end();
    };
    const { cookies, headers } = await client.get({ url: origin });
    expect(Object.entries(cookies)).toEqual([
      ["a", "2"],
      ["b", "two words"],
      ["c", "x=y"],
      ["__proto__", "p"],
    ]);
    expect(headers["Set-Cookie"]).toHaveLength(7);
    expect({}.p).toBeUndefined();
  });

  test.each([
    ["gzip", zlib.gzipSync],
    ["x-gzip", zlib.gzipSync],
    ["deflate", zlib.deflateSync],
    ["deflate", zlib.deflateRawSync],
    ["br", zlib.brotliCompressSync],
    ["deflate, gzip", (text) => zlib.gzipSync(zlib.deflateSync(text))],
    ["identity", Buffer.from],
  ])("is decompressed from %s", async (encoding, compress) => {
    const text = "some text ".repeat(10_000);
    routes["/"] = (_request, response) => {
      response.writeHead(200, { "Content-Encoding": encoding });
      response.end(compress(text));
    };
    const result = await client.get({ url: origin });
    expect(result.body.text()).toBe(text);
    expect(result.contentLength).toBe(text.length);
    expect(received[0].headers["accept-encoding"]).toBe("gzip, deflate, br");
  });

  test("is empty if the server announces an encoding and sends nothing", async () => {
    routes["/"] = (_request, response) => {
      response.writeHead(200, { "Content-Encoding": "gzip" });
      response.flushHeaders();
      setTimeout(() => response.end(), 20);
    };
    expect((await client.get({ url: origin })).body.text()).toBe("");
    expect((await client.head({ url: origin })).body.text()).toBe("");
  });

  test("has bytes as they are if the encoding is unknown", async () => {
    routes["/"] = (_request, response) => response.writeHead(200, { "Content-Encoding": "zip" }).end("raw");
    const result = await client.get({ url: origin });
    expect([result.body.text(), result.headers["Content-Encoding"]]).toEqual(["raw", ["zip"]]);
  });
});

describe("the URL", () => {
  test("can be given in parts", async () => {
    await client.get({
      scheme: "http",
      host,
      path: "a b/c?d#e",
      query: { q: ["x y", "&="], r: "1", n: 5 },
      fragment: "f",
    });
    await client.get({ domain: host, path: "/d" });
    await client.get({ url: `${origin}/e?a=1`, query: { b: ["2"] } });
    expect(received.map(({ url }) => url)).toEqual(["/a%20b/c%3Fd%23e?q=x+y&q=%26%3D&r=1&n=5", "/d", "/e?a=1&b=2"]);
  });

  test.each([
    [{}, '"url" or "host" argument must be given'],
    [undefined, "the argument must be an object"],
    ["http://a", "the argument must be an object"],
    [{ url: 5 }, '"url" argument must be a string'],
    [{ host: "a", username: 5 }, '"username" argument must be a string'],
    [{ host: ["a"] }, '"host" argument must be a string'],
    [{ host: "a", digestAuth: "yes" }, '"digestAuth" argument must be a boolean'],
    [{ host: "a", headers: "x" }, '"headers" argument must be an object'],
    [{ host: "a", query: { a: { b: 1 } } }, '"query" argument must be an object with arrays of strings'],
    [{ url: "nowhere" }, '"url" argument must be a URL with a scheme and a host'],
    [{ url: "file:///etc/passwd" }, 'unsupported protocol scheme "file"'],
    [{ scheme: "ftp", host: "a" }, 'unsupported protocol scheme "ftp"'],
    [{ scheme: "http://evil?", host: "a" }, '"scheme" argument must be "http" or "https"'],
    [{ host: "a", cookies: 5 }, '"cookies" argument must be an object'],
    [{ host: "a", digestAuth: true }, '"digestAuth" needs "username" and "password"'],
    [{ host: "a", body: {} }, '"body" argument must be a string or a Binary, or an object with "encodeBodyAsJSON"'],
    [{ host: "a", body: 5 }, '"body" argument must be a string or a Binary, or an object with "encodeBodyAsJSON"'],
    [{ host: "a", body: "b", form: {} }, 'only one of "body" and "form" can be given'],
  ])("and the other arguments are checked: %j", async (args, message) => {
    await expect(client.get(args)).rejects.toEqual(invalid(`http request: ${message}`));
  });

  test.each(["evil@host", "host/path", "host?query", "host#f", "a b", "a\r\nb", "", "\\host"])(
    "rejects the host %j",
    async (given) => {
      await expect(client.get({ host: given })).rejects.toEqual(
        invalid('http request: "host" argument must be the name of a host, with a port or without'),
      );
    },
  );
});

describe("the request", () => {
  test("sends the values of a header joined by commas", async () => {
    const headers = { "X-Many": ["value1", "value2"], "X-One": "text", "x-many": ["value3"], "X-Utf": ["é"], none: [] };
    await client.get({ url: origin, headers });
    expect(received[0].headers).toMatchObject({ "x-many": "value1,value2,value3", "x-one": "text", "x-utf": "Ã©" });
    expect(received[0].headers).not.toHaveProperty("none");
  });

  test("sends cookies", async () => {
    await client.get({ url: origin, headers: { Cookie: ["z=0"] }, cookies: { a: "1", b: "two words" } });
    await client.get({ url: origin, cookies: "a=1; b=2" });
    expect(received.map(({ headers }) => headers.cookie)).toEqual(['z=0; a=1; b="two words"', "a=1; b=2"]);
  });

  test("sends a text, a Binary and bytes as they are", async () => {
    for (const body of ["aé", BSON.Binary.fromText("aé"), Buffer.from("aé"), ""]) {
      await client.post({ url: origin, body });
    }
    expect(received.map(({ body }) => body)).toEqual(["aÃ©", "aÃ©", "aÃ©", ""]);
    expect(received[0].headers).toMatchObject({ "content-length": "3" });
    expect(received[0].headers).not.toHaveProperty("content-type");
  });

  test("encodes a body as JSON", async () => {
    const id = BSON.ObjectId("0123456789abcdef01234567");
    await client.post({ url: origin, encodeBodyAsJSON: true, body: { n: 1, l: BSON.Long(2), id, none: undefined } });
    await client.post({ url: origin, encodeBodyAsJSON: true, body: "text", headers: { "content-type": ["a/b"] } });
    expect(received.map(({ body }) => body)).toEqual([`{"n":1,"l":2,"id":{"$oid":"${id}"}}`, '"text"']);
    expect(received.map(({ headers }) => headers["content-type"])).toEqual(["application/json", "a/b"]);
  });

  test("encodes a form as multipart/form-data", async () => {
    const form = { a: "text é", b: 5, c: ["1", "2"], d: BSON.Binary.fromHex("00ff"), e: { f: 1 }, g: null };
    await client.post({ url: origin, form, headers: { "Content-Type": ["text/plain"] } });
    const { headers, body } = received[0];
    const parsed = await new Response(Buffer.from(body, "latin1"), { headers }).formData();
    expect([...parsed.keys()]).toEqual(["a", "b", "c", "c", "d", "e", "g"]);
    expect(parsed.getAll("c")).toEqual(["1", "2"]);
    expect([parsed.get("a"), parsed.get("b"), parsed.get("e"), parsed.get("g")]).toEqual([
      "text é",
      "5",
      '{"f":1}',
      "",
    ]);
    expect(body).toContain('name="d"\r\nContent-Type: application/octet-stream\r\n\r\n\x00\xff\r\n');
  });

  test("sends basic authentication from fields or the URL", async () => {
    await client.get({ url: origin, username: "user", password: "pass" });
    await client.get({ url: `http://us%40er:pa%3Ass@${host}/` });
    await client.get({ url: origin, username: "user", password: "pass", headers: { authorization: ["Bearer x"] } });
    const basic = (text) => `Basic ${Buffer.from(text).toString("base64")}`;
    const sent = received.map(({ headers }) => headers.authorization);
    expect(sent).toEqual([basic("user:pass"), basic("us@er:pa:ss"), "Bearer x"]);
  });

  test("does not take over the framing of the message from headers", async () => {
    const headers = {
      "Content-Length": ["5"],
      "transfer-encoding": ["chunked"],
      Host: ["other"],
      Expect: ["100-continue"],
      Connection: ["keep-alive"],
    };
    const result = await client.post({ url: origin, body: "a longer body", headers });
    expect(result.statusCode).toBe(200);
    expect(received[0]).toMatchObject({ body: "a longer body", headers: { host, "content-length": "13" } });
    expect(received[0].headers).toMatchObject({ connection: "close" });
    expect(received[0].headers).not.toHaveProperty("transfer-encoding");
  });

  test("sends the cookies of authUrl", async () => {
    routes["/login"] = (_request, response) => {
      response.writeHead(302, { "Set-Cookie": ['session={"a":1}; Path=/'], Location: "/home" }).end();
    };
    await client.get({ url: `${origin}/data`, authUrl: `${origin}/login`, cookies: { own: "1" } });
    expect(received.map(({ url, headers }) => [url, headers.cookie])).toEqual([
      ["/login", undefined],
      ["/data", 'own=1; session={"a":1}'],
    ]);
  });
});

describe("digest authentication", () => {
  const vector = {
    realm: "http-auth@example.org",
    nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
    opaque: "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
  };
  const challengeOf = (algorithm) =>
    `Digest realm="${vector.realm}", qop="auth, auth-int", algorithm=${algorithm}, nonce="${vector.nonce}", opaque="${vector.opaque}"`;
  const credentials = { method: "GET", uri: "/dir/index.html", username: "Mufasa", password: "Circle of Life" };

  test.each([
    ["MD5", "8ca523f5e9506fed4657c9700eebdbec"],
    ["SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"],
  ])("computes the example of RFC 7616 with %s", (algorithm, response) => {
    const challenge = digestChallenge([challengeOf(algorithm)]);
    const header = digestAuthorization(challenge, credentials, "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ");
    expect(header).toContain(`response="${response}"`);
    expect(header).toContain(`algorithm=${algorithm}, qop=auth, nc=00000001, cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5Qzzp`);
  });

  test("prefers SHA-256 in one header or several, and skips other schemes", () => {
    const both = [challengeOf("MD5"), challengeOf("SHA-256")];
    for (const headers of [both, [both.join(", ")], [`Basic realm="x", ${both[1]}`], [`Negotiate abc==, ${both[1]}`]]) {
      expect(digestChallenge(headers)).toMatchObject({ hash: "sha256", realm: vector.realm });
    }
    expect(
      digestChallenge(['Basic realm="x"', "", "Digest", 'Digest realm="x", qop="auth-int", nonce="n"']),
    ).toBeUndefined();
    expect(digestChallenge(['Digest realm="x", algorithm=SHA-1, nonce="n"'])).toBeUndefined();
    expect(digestChallenge(['Digest realm="a \\"b\\"", nonce="n", stale=TRUE'])).toMatchObject({
      realm: 'a "b"',
      isStale: true,
      hasQop: false,
    });
  });

  const md5 = (text) => createHash("md5").update(text).digest("hex");

  /** Returns true if a request has the right answer to a nonce. */
  function isAuthorized({ method, url, headers }, nonce) {
    const { authorization = "" } = headers;
    const [, response] = /response="([^"]*)"/.exec(authorization) ?? [];
    const [, cnonce] = /cnonce="([^"]*)"/.exec(authorization) ?? [];
    const secret = md5("user:private:pass");
    return response === md5([secret, nonce, "00000001", cnonce, "auth", md5(`${method}:${url}`)].join(":"));
  }

  test("answers a challenge, and a stale nonce once more", async () => {
    const nonces = ["first", "second"];
    let count = 0;
    routes["/private"] = (request, response, body) => {
      if (count === 2 && isAuthorized(request, "second")) {
        response.end(`hello ${body}`);
        return;
      }
      const stale = count === 1 ? ", stale=true" : "";
      response.writeHead(401, {
        "WWW-Authenticate": `Digest realm="private", qop="auth", nonce="${nonces[count]}"${stale}`,
      });
      response.end();
      count += 1;
    };
    const args = { url: `http://user:pass@${host}/private?a=1`, digestAuth: true, body: "again" };
    const result = await client.post(args);
    expect([result.statusCode, result.body.text()]).toEqual([200, "hello again"]);
    expect(received[0].headers.authorization).toBeUndefined();
    expect(received).toHaveLength(3);
  });

  test("returns the 401 of wrong credentials or another scheme", async () => {
    const challenges = { "/a": 'Digest realm="private", qop="auth", nonce="n"', "/b": 'Basic realm="private"' };
    for (const [name, challenge] of Object.entries(challenges)) {
      routes[name] = (_request, response) => response.writeHead(401, { "WWW-Authenticate": challenge }).end("no");
      const args = { url: origin + name, digestAuth: true, username: "user", password: "wrong" };
      expect(await client.get(args)).toMatchObject({ statusCode: 401 });
    }
    expect(received.map(({ url }) => url)).toEqual(["/a", "/a", "/b"]);
    expect(received[2].headers.authorization).toBeUndefined();
  });
});

describe("redirects", () => {
  test("are returned unless they are to be followed", async () => {
    routes["/"] = (_request, response) => response.writeHead(302, { Location: "/next" }).end("moved");
    expect(await client.get({ url: origin })).toMatchObject({ statusCode: 302, headers: { Location: ["/next"] } });
    expect((await client.get({ url: origin, followRedirects: true })).body.text()).toBe("ok");
    expect(received.map(({ url }) => url)).toEqual(["/", "/", "/next"]);
  });

  test.each([
    [301, "GET", ""],
    [302, "GET", ""],
    [303, "GET", ""],
    [307, "POST", "body"],
    [308, "POST", "body"],
  ])("with %d continue with %s", async (status, method, body) => {
    routes["/"] = (_request, response) => response.writeHead(status, { Location: "next" }).end();
    const headers = { "Content-Type": ["text/plain"], Authorization: ["Bearer x"] };
    await client.post({ url: origin, body: "body", headers, followRedirects: true });
    expect(received[1]).toMatchObject({ method, body, url: "/next", headers: { authorization: "Bearer x" } });
    expect(received[1].headers["content-type"]).toBe(method === "GET" ? undefined : "text/plain");
  });

  test("without a location are returned", async () => {
    routes["/"] = (_request, response) => response.writeHead(302).end("moved");
    expect((await client.get({ url: origin, followRedirects: true })).body.text()).toBe("moved");
  });

  test("to another host do not receive secrets, also after the way back", async () => {
    const seen = [];
    const other = http.createServer((request, response) => {
      seen.push(request.headers);
      response.writeHead(307, { Location: `http://x:y@${host}/back` }).end();
    });
    await once(other.listen(0, "127.0.0.1"), "listening");
    routes["/"] = (_request, response) => {
      response.writeHead(307, { Location: `http://127.0.0.1:${other.address().port}/` }).end();
    };
    const common = { url: origin, followRedirects: true, cookies: { a: "1" } };
    await client.get({ ...common, headers: { Authorization: ["Bearer x"], "X-Other": ["kept"] } });
    await client.get({ ...common, username: "user", password: "pass" });
    other.close();
    for (const headers of [...seen, received[1].headers, received[3].headers]) {
      expect(headers).not.toHaveProperty("authorization");
      expect(headers).not.toHaveProperty("cookie");
    }
    expect(seen[0]).toMatchObject({ "x-other": "kept" });
    expect(seen).toHaveLength(2);
  });

  test("without end are stopped", async () => {
    routes["/"] = (_request, response) => response.writeHead(302, { Location: "/" }).end();
    await expect(client.get({ url: origin, followRedirects: true })).rejects.toEqual(
      failed("stopped after 10 redirects"),
    );
    expect(received).toHaveLength(11);
  });

  test.each([
    ["file:///etc/passwd", 'unsupported protocol scheme "file"'],
    ["http://", "invalid URL"],
  ])("to %s are rejected", async (location, message) => {
    routes["/"] = (_request, response) => response.writeHead(302, { Location: location }).end();
    await expect(client.get({ url: origin, followRedirects: true })).rejects.toEqual(failed(message));
  });

  test("do not read the body of a redirect", async () => {
    routes["/"] = (_request, response) => {
      response.writeHead(302, { Location: "/next" });
      response.write("a body without end");
    };
    expect((await client.get({ url: origin, followRedirects: true })).body.text()).toBe("ok");
  });
});

describe("sockets", () => {
  test("are limited, and further requests wait", async () => {
    let open = 0;
    let most = 0;
    routes["/"] = (_request, response) => {
      open += 1;
      most = Math.max(most, open);
      setTimeout(() => {
        open -= 1;
        response.end();
      }, 10);
    };
    const gate = new Gate(3);
    const clients = [makeHttp({ gate }), makeHttp({ gate })];
    const results = await Promise.all(
      Array.from({ length: 20 }, (_, index) => clients[index % 2].get({ url: origin })),
    );
    expect(results.every(({ statusCode }) => statusCode === 200)).toBe(true);
    expect(most).toBe(3);
  });

  test("are shared by users, of whom none takes all", async () => {
    const gate = new Gate(5);
    const held = [];
    const begin = (user) => {
      const state = { begun: false };
      const ended = gate.run(() => new Promise((end) => Object.assign(state, { begun: true, end })), undefined, user);
      return Object.assign(state, { ended });
    };
    const settle = () => new Promise(setImmediate);
    for (let index = 0; index < 8; index++) {
      held.push(begin("first"));
    }
    const [second, third] = [begin("second"), begin("third")];
    await settle();
    expect(held.map(({ begun }) => begun)).toEqual([true, true, true, true, false, false, false, false]);
    expect([second.begun, third.begun]).toEqual([true, false]);
    held[0].end();
    await settle();
    expect([held[4].begun, third.begun]).toEqual([false, true]);
    for (const state of [second, third, ...held.slice(1)]) {
      while (!state.begun) {
        await settle();
      }
      state.end();
      await state.ended;
    }
  });

  test("are free again after failures", async () => {
    const few = makeHttp({ limits: { sockets: 1 } });
    routes["/broken"] = (request) => request.socket.destroy();
    for (let index = 0; index < 3; index++) {
      await expect(few.get({ url: `${origin}/broken` })).rejects.toEqual(failed(""));
    }
    expect((await few.get({ url: origin })).statusCode).toBe(200);
  });

  test("do not keep the process running", () => {
    const file = path.join(__dirname, "../lib/functions/globals/http.js");
    const source = `
      const server = require("node:http").createServer((request, response) => response.end("x".repeat(1000)));
      server.listen(0, "127.0.0.1", async () => {
        const client = require(${JSON.stringify(file)}).makeHttp();
        const result = await client.get({ url: "http://127.0.0.1:" + server.address().port });
        server.unref();
        console.log(result.status);
      });`;
    const started = Date.now();
    const { stdout, status } = spawnSync(process.execPath, ["-e", source], { encoding: "utf8", timeout: 20_000 });
    expect([stdout, status]).toEqual(["200 OK\n", 0]);
    // The time limit of a request is a minute: its timer must not hold the process.
    expect(Date.now() - started).toBeLessThan(15_000);
  });
});

test("documents of the store can be sent and compared", async () => {
  routes["/"] = (_request, response, body) => response.end(body);
  const body = new bson.Binary(Buffer.from([0, 255]));
  expect((await client.put({ url: origin, body })).body).toEqual(body);
});
