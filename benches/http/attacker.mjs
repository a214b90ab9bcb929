// Floods a server with log-ins with a wrong password, each for a different account, until it
// receives a message: `fork("attacker.mjs", [url, clients])`. Then sends its parent the numbers of
// responses (`answered`) and of rate-limited log-ins (`refused`).
import http from "node:http";

const [, , url, clients] = process.argv;
const agent = new http.Agent({ keepAlive: true, maxSockets: Number(clients) });
const counts = { answered: 0, refused: 0 };
let flooding = true;

function attempt(number) {
  return new Promise((resolve, reject) => {
    const body = JSON.stringify({ username: `unknown${number}@example.com`, password: "wrong one" });
    const headers = { "Content-Length": Buffer.byteLength(body) };
    const request = http.request(url, { method: "POST", agent, headers }, (response) => {
      counts.answered += 1;
      counts.refused += response.statusCode === 429 ? 1 : 0;
      response.on("end", resolve).resume();
    });
    request.on("error", reject).end(body);
  });
}

async function attack(first) {
  for (let number = first; flooding; number += Number(clients)) {
    await attempt(number);
  }
}

process.on("message", () => {
  flooding = false;
});
await Promise.all(Array.from({ length: Number(clients) }, (_, first) => attack(first)));
process.send(counts, () => process.disconnect());
