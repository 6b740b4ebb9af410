// Serves the page that browser.mjs drives, and an echo to its WebSockets.
//
// Prints `listening PORT NAME`; ends when its standard input does.

import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { WebSocketServer } from "ws";

const { values: options } = parseArgs({ options: { name: { type: "string" } } });

const page = `<!doctype html>
<title>sockets</title>
<script>
  window.sockets = {};
  window.openSocket = (name, path) => {
    const socket = new WebSocket("ws://" + location.host + path);
    window.sockets[name] = socket;
    socket.onopen = () => socket.send("hello");
    socket.onmessage = (event) => window.say({ event: "echo", name, data: event.data });
    socket.onclose = ({ code, reason, wasClean }) =>
      window.say({ event: "close", name, code, reason, wasClean });
  };
</script>
`;

const http = createServer((_request, response) => {
  response.setHeader("Content-Type", "text/html; charset=utf-8");
  response.end(page);
});
const server = new WebSocketServer({ server: http });
server.on("connection", (socket) => {
  socket.on("error", () => {});
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
});

http.listen(0, "127.0.0.1", () => console.log(`listening ${http.address().port} ${options.name}`));

process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
