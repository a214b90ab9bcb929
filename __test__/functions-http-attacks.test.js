"use strict";

const { once } = require("node:events");
const net = require("node:net");
const { setTimeout: sleep } = require("node:timers/promises");
const zlib = require("node:zlib");
const { makeHttp } = require("../lib/functions/globals/http.js");
const { encodeForm } = require("../lib/functions/globals/multipart.js");

const MEGABYTE = 1024 * 1024;
const client = makeHttp({ limits: { timeLimit: 20_000 } });
const servers = [];

const failed = (message) =>
  expect.objectContaining({ name: "FunctionError", errorCode: "HTTPError", message: expect.stringContaining(message) });
const invalid = (message) => expect.objectContaining({ errorCode: "InvalidParameter", message });

/** Returns true if a text has the whole head of a request, or begins with a message of TLS. */
const isHead = (text) => text.includes("\r\n\r\n") || text.startsWith("\x16");

/**
 * Starts a server that answers with bytes of its own. `talk` gets each socket after the request's
 * head.
 */
async function serve(talk) {
  const sockets = new Set();
  const heads = [];
  const server = net.createServer((socket) => {
    let head = "";
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    socket.on("data", (chunk) => {
      const wasComplete = isHead(head);
      head += chunk.toString("latin1");
      if (!wasComplete && isHead(head)) {
        heads.push(head);
        talk(socket);
      }
    });
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  servers.push({ server, sockets });
  return { url: `http://127.0.0.1:${server.address().port}/`, sockets, heads };
}

afterEach(() => {
  for (const { server, sockets } of servers.splice(0)) {
    for (const socket of sockets) {
      socket.destroy();
    }
    server.close();
  }
});

/** Writes chunks for as long as the client reads. */
function pour(socket, chunk) {
  const write = () => {
    while (!socket.destroyed && socket.write(chunk));
  };
  socket.on("drain", write);
  write();
}

/** Returns the memory that an operation needs at most, in bytes. */
async function memoryOf(operation) {
  const used = () => {
    const { external, heapUsed } = process.memoryUsage();
    return external + heapUsed;
  };
  const before = used();
  let most = before;
  const timer = setInterval(() => {
    most = Math.max(most, used());
  }, 5);
  try {
    await operation();
  } finally {
    clearInterval(timer);
  }
  return Math.max(most, used()) - before;
}

async function untilClosed(sockets) {
  for (let count = 0; count < 200 && sockets.size > 0; count++) {
    await sleep(10);
  }
  expect(sockets.size).toBe(0);
}

describe("a hostile server", () => {
  test("cannot fill the memory with a body without end", async () => {
    const { url, sockets } = await serve((socket) => {
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      pour(socket, Buffer.alloc(64 * 1024, "x"));
    });
    const needed = await memoryOf(async () => {
      await expect(client.get({ url })).rejects.toEqual(failed("is larger than 16777216 bytes"));
    });
    expect(needed).toBeLessThan(128 * MEGABYTE);
    await untilClosed(sockets);
  });

  test("cannot fill the memory with chunks of one byte", async () => {
    const { url, sockets } = await serve((socket) => {
      socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      pour(socket, Buffer.from("1\r\nx\r\n".repeat(4096)));
    });
    const limited = makeHttp({ limits: { bodySize: MEGABYTE } });
    const needed = await memoryOf(async () => {
      await expect(limited.get({ url })).rejects.toEqual(failed("is larger than 1048576 bytes"));
    });
    expect(needed).toBeLessThan(96 * MEGABYTE);
    await untilClosed(sockets);
  });

  test.each([
    ["gzip", zlib.gzipSync],
    ["deflate", zlib.deflateSync],
    ["br", (bytes) => zlib.brotliCompressSync(bytes, { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 1 } })],
    ["gzip, gzip", (bytes) => zlib.gzipSync(zlib.gzipSync(bytes))],
  ])("cannot fill the memory with a small body that grows by %s", async (encoding, compress) => {
    const bomb = compress(Buffer.alloc(100 * MEGABYTE));
    expect(bomb.length).toBeLessThan(MEGABYTE);
    const { url, sockets } = await serve((socket) => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Encoding: ${encoding}\r\nContent-Length: ${bomb.length}\r\n\r\n`);
      socket.write(bomb);
    });
    const needed = await memoryOf(async () => {
      await expect(client.get({ url })).rejects.toEqual(failed("is larger than 16777216 bytes"));
    });
    expect(needed).toBeLessThan(96 * MEGABYTE);
    await untilClosed(sockets);
  });

  test("cannot chain many encodings", async () => {
    const { url } = await serve((socket) => {
      socket.end(`HTTP/1.1 200 OK\r\nContent-Encoding: ${"gzip, ".repeat(1000)}gzip\r\n\r\nx`);
    });
    await expect(client.get({ url })).rejects.toEqual(failed("more than 3 encodings"));
  });

  test("accepts a body of exactly the limit", async () => {
    const limited = makeHttp({ limits: { bodySize: 1000 } });
    const { url } = await serve((socket) => socket.end(`HTTP/1.1 200 OK\r\n\r\n${"x".repeat(1000)}`));
    expect((await limited.get({ url })).contentLength).toBe(1000);
  });

  test.each([
    ["the head", "HTTP/1.1 200 OK\r\nX-Slow: ", "x"],
    ["the body", "HTTP/1.1 200 OK\r\n\r\n", "x"],
    ["interim responses", "", "HTTP/1.1 100 Continue\r\n\r\n"],
    ["a compressed body", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f", ""],
    ["a deflated body without bytes", "HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n\r\n", ""],
    ["nothing", "", ""],
  ])("cannot hold a request with %s in drops", async (_name, first, drop) => {
    const { url, sockets } = await serve(async (socket) => {
      socket.write(first, "latin1");
      while (!socket.destroyed) {
        socket.write(drop);
        await sleep(20);
      }
    });
    const hasty = makeHttp({ limits: { timeLimit: 300, sockets: 1 } });
    const started = Date.now();
    await expect(hasty.get({ url })).rejects.toEqual(failed("no complete answer within 300 ms"));
    expect(Date.now() - started).toBeLessThan(5000);
    await untilClosed(sockets);
  });

  test("cannot extend the time limit by redirects", async () => {
    const { url } = await serve(async (socket) => {
      await sleep(100);
      socket.end("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n");
    });
    const hasty = makeHttp({ limits: { timeLimit: 250 } });
    await expect(hasty.get({ url, followRedirects: true })).rejects.toEqual(failed("no complete answer within 250 ms"));
  });

  test.each([
    ["HTTP/1.1 200\r\n\r\n", 200, "200 OK"],
    ["HTTP/1.1 200 \r\n\r\n", 200, "200 OK"],
    ["HTTP/1.1 299 Weird & Wonderful\r\n\r\n", 299, "299 Weird & Wonderful"],
    ["HTTP/1.1 999 \r\n\r\n", 999, "999"],
    ["HTTP/1.0 200 Fine\r\n\r\n", 200, "200 Fine"],
    ["HTTP/1.1 200 Déjà\r\n\r\n", 200, "200 Déjà"],
  ])("may answer with the status line %j", async (head, statusCode, status) => {
    const { url } = await serve((socket) => socket.end(`${head}`));
    expect(await client.get({ url })).toMatchObject({ statusCode, status });
  });

  test.each([
    ["HTTP/1.1 abc OK\r\n\r\n"],
    ["HTTP/1.1 99999 OK\r\n\r\n"],
    ["SSH-2.0-OpenSSH\r\n"],
    ["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"],
    ["HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"],
    ["HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"],
    ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
    [`HTTP/1.1 200 OK\r\nX-Large: ${"x".repeat(100_000)}\r\n\r\n`],
    ["HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n"],
    ["HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nnot gzip"],
    ["HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n\xff\xff\xff"],
    ["HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n\r\n\xff\xff\xff"],
    [""],
  ])("gets an error for the response %#", async (bytes) => {
    const { url, sockets } = await serve((socket) => socket.end(bytes, "latin1"));
    await expect(client.get({ url })).rejects.toEqual(failed("http request: "));
    await untilClosed(sockets);
  });

  test("cannot change the prototype of the headers", async () => {
    const { url } = await serve((socket) => socket.end("HTTP/1.1 200 OK\r\n__proto__: a\r\nconstructor: b\r\n\r\n"));
    const { headers } = await client.get({ url });
    expect(Object.entries(headers)).toEqual([
      ["__proto__", ["a"]],
      ["Constructor", ["b"]],
    ]);
    expect(Object.getPrototypeOf(headers)).toBe(Object.prototype);
  });

  test("cannot answer twice", async () => {
    const { url, sockets } = await serve((socket) => {
      socket.end("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 500 Evil\r\n\r\n");
    });
    const result = await client.get({ url });
    expect([result.statusCode, result.body.text()]).toEqual([200, "a"]);
    await untilClosed(sockets);
  });

  test("gets an error if it does not speak TLS", async () => {
    const { url } = await serve((socket) => socket.end("HTTP/1.1 200 OK\r\n\r\n"));
    const timed = makeHttp({ limits: { timeLimit: 2000 } });
    await expect(timed.get({ url: url.replace("http:", "https:") })).rejects.toEqual(failed("http request: "));
  });

  test("causes an error without the URL's secrets if it is not reachable", async () => {
    const { url } = await serve(() => {});
    servers[0].server.close();
    const error = await client
      .get({ url: `${url.replace("//", "//user:hunter2@")}?key=abc` })
      .catch((reason) => reason);
    expect(error).toEqual(failed("ECONNREFUSED"));
    expect(error.message).not.toMatch(/hunter2|abc/);
  });
});

describe("untrusted arguments", () => {
  const ok = (socket) => socket.end("HTTP/1.1 200 OK\r\n\r\n");

  test.each(["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "\x7f"])("cannot end a header: %j", async (value) => {
    const { url, heads } = await serve(ok);
    await expect(client.get({ url, headers: { "X-A": ["fine", value] } })).rejects.toEqual(
      invalid('http request: the value of the header "X-A" has a control character'),
    );
    await expect(client.get({ url, cookies: value })).rejects.toEqual(
      invalid('http request: the value of the header "Cookie" has a control character'),
    );
    await expect(client.get({ url, cookies: { a: value } })).rejects.toEqual(
      invalid('http request: the value of the cookie "a" has a character that cookies cannot have'),
    );
    expect(heads).toEqual([]);
  });

  test.each(["a\r\nX-Evil", "a b", "a:", "", "é"])("cannot be the name of a header or cookie: %j", async (name) => {
    const { url, heads } = await serve(ok);
    const shown = JSON.stringify(name);
    await expect(client.get({ url, headers: { [name]: ["1"] } })).rejects.toEqual(
      invalid(`http request: ${shown} is not the name of a header`),
    );
    await expect(client.get({ url, cookies: { [name]: "1" } })).rejects.toEqual(
      invalid(`http request: ${shown} is not the name of a cookie`),
    );
    expect(heads).toEqual([]);
  });

  test.each(["a; admin=1", 'a"', "a\\", "é"])("cannot add a cookie by the value %j", async (value) => {
    await expect(client.get({ host: "localhost", cookies: { a: value } })).rejects.toEqual(
      invalid('http request: the value of the cookie "a" has a character that cookies cannot have'),
    );
  });

  test("cannot inject a header or a request by the URL or the credentials", async () => {
    const { url, heads } = await serve(ok);
    const { host } = new URL(url);
    await client.get({ url: `${url}a\r\nX-Evil: 1` });
    await client.get({ host, path: "/a HTTP/1.1\r\nX-Evil: 1\r\n\r\n", query: { "a\r\n": ["b\r\nX-Evil: 1"] } });
    await client.get({ host, username: "a\r\nX-Evil: 1", password: "b\r\n" });
    expect(heads).toHaveLength(3);
    for (const head of heads) {
      expect(head).not.toMatch(/^X-Evil/m);
      expect(head.match(/HTTP\/1\.1\r\n/g)).toHaveLength(1);
    }
  });

  test("cannot inject a header by the name of a digest's user", async () => {
    const { url, heads } = await serve((socket) => {
      socket.end('HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="r", qop="auth", nonce="n"\r\n\r\n');
    });
    const args = { url, digestAuth: true, username: "a\r\nX-Evil: 1", password: "b" };
    await expect(client.get(args)).rejects.toEqual(
      invalid('http request: the value of the header "Authorization" has a control character'),
    );
    expect(heads).toEqual([]);
    await client.get({ ...args, username: 'quo"te\\d' });
    expect(heads.at(-1)).toContain('username="quo\\"te\\\\d"');
  });

  test("cannot inject a part of a form", async () => {
    const name = 'a"\r\nX-Evil: 1\r\n\r\n';
    const { body, contentType } = encodeForm({ [name]: "1", b: "2\r\n--boundary--\r\n" });
    expect(body.toString()).toContain('name="a%22%0D%0AX-Evil: 1%0D%0A%0D%0A"\r\n\r\n1\r\n');
    const form = await new Response(body, { headers: { "content-type": contentType } }).formData();
    expect([...form.keys()]).toHaveLength(2);
    expect(form.get("b")).toBe("2\r\n--boundary--\r\n");
  });

  test("are not sent if they only look like a Binary", async () => {
    const body = { _bsontype: "Binary", buffer: { length: 5 }, position: 1e9, sub_type: 0 };
    await expect(client.post({ host: "localhost", body })).rejects.toEqual(
      expect.objectContaining({ errorCode: "InvalidParameter" }),
    );
  });
});

describe("a signal", () => {
  test("aborts the open and the waiting requests of a call", async () => {
    const { url, sockets, heads } = await serve(() => {});
    const controller = new AbortController();
    const called = makeHttp({ signal: controller.signal, limits: { sockets: 2 } });
    const requests = Array.from({ length: 5 }, () => called.get({ url }));
    const settled = Promise.allSettled(requests);
    while (heads.length < 2) {
      await sleep(5);
    }
    controller.abort();
    for (const { status, reason } of await settled) {
      expect([status, reason]).toEqual(["rejected", failed("the request was aborted")]);
    }
    expect(heads).toHaveLength(2);
    await untilClosed(sockets);
    await expect(called.get({ url })).rejects.toEqual(failed("the request was aborted"));
  });

  test("aborts a response that is being read", async () => {
    const { url, sockets } = await serve((socket) => socket.write("HTTP/1.1 200 OK\r\n\r\npart"));
    const controller = new AbortController();
    const request = makeHttp({ signal: controller.signal }).get({ url });
    setTimeout(() => controller.abort(), 100);
    await expect(request).rejects.toEqual(failed("the request was aborted"));
    await untilClosed(sockets);
  });
});
