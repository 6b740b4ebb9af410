// One socket.io server, as a test starts several of them: no adapter is shared, so a session lives
// in this process alone and any request of it that arrives elsewhere is answered 400.
//
// Prints `listening PORT NAME`; ends when its standard input does.

import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { Server } from "socket.io";

const { values: options } = parseArgs({
  options: { name: { type: "string" }, port: { type: "string", default: "0" } },
});
const name = options.name;

const http = createServer((request, response) => {
  const path = new URL(request.url, "http://server").pathname;
  if (path === "/readyz" || path === "/healthz") {
    response.end("ok\n");
  } else if (path === "/whoami") {
    response.end(`${name}\n`);
  } else {
    response.writeHead(404).end();
  }
});

const io = new Server(http);
io.on("connection", (socket) => {
  let previous = 0;
  let pushed = 0;
  socket.emit("hello", name);
  // `previous` lets the client tell a lost or repeated message from a late acknowledgement.
  socket.on("echo", (message, acknowledge) => {
    acknowledge({ message, name, previous });
    previous = message.sequence;
    socket.emit("push", ++pushed);
  });
});

http.listen(Number(options.port), "127.0.0.1", () => {
  console.log(`listening ${http.address().port} ${name}`);
});

process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
