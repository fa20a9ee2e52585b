// Copyright: sockredir contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
// node echo.js server PORT: sends each body back as it comes.
// node echo.js client PORT COUNT: requests with bodies of all sizes, four at a time; prints how many were right.
"use strict";

const http = require("http");
const { createHash } = require("crypto");
const { Readable } = require("stream");

const [role, port, count] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });

function serve() {
  http.createServer((request, response) => request.pipe(response)).listen(Number(port), "127.0.0.1");
}

function* body(number) {
  for (let part = 0; part <= number % 40; part++) {
    yield Buffer.alloc(1 + ((number * 7919 + part * 104729) % 60000), number + part);
  }
}

function digest(parts) {
  const hash = createHash("sha256");
  parts.forEach((part) => hash.update(part));
  return hash.digest("hex");
}

function ask(number) {
  return new Promise((resolve, reject) => {
    const request = http.request({ port, host: "127.0.0.1", method: "POST", agent }, (response) => {
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.on("end", () => resolve(digest(parts) === digest([...body(number)])));
      response.on("error", reject);
    });
    request.on("error", reject);
    Readable.from(body(number)).pipe(request);
  });
}

async function askAll() {
  const answers = await Promise.all(Array.from({ length: Number(count) }, (_, number) => ask(number)));
  console.log(`${answers.filter(Boolean).length} of ${answers.length}`);
  agent.destroy();
}

if (role === "server") {
  serve();
} else {
  askAll();
}
