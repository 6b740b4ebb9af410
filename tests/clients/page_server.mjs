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
    const scheme = location.protocol === "https:" ? "wss://" : "ws://";
    const socket = new WebSocket(scheme + location.host + path);
    window.sockets[name] = socket;
    socket.onopen = () => socket.send("hello");
    socket.onmessage = (event) => window.say({ event: "echo", name, data: event.data });
    socket.onclose = ({ code, reason, wasClean }) =>
      window.say({ event: "close", name, code, reason, wasClean });
  };
</script>
`;

// `/seen` tells who answered, and by which cookies; `/around?URL` shows another site's page in a frame.
const http = createServer((request, response) => {
  const url = new URL(request.url, "http://page");
  response.setHeader("Content-Type", "text/html; charset=utf-8");
  if (url.pathname === "/seen") {
    const cookies = (request.headers.cookie ?? "").split("; ").map((pair) => pair.split("=")[0]);
    const seen = { name: options.name, cookies, proto: request.headers["x-forwarded-proto"] };
    response.end(`<title>seen</title><p>${JSON.stringify(seen)}</p>`);
  } else if (url.pathname === "/around") {
    response.end(`<title>around</title><iframe src="${url.search.slice(1)}"></iframe>`);
  } else {
    response.end(page);
  }
});
const server = new WebSocketServer({ server: http });
server.on("connection", (socket) => {
  socket.on("error", () => {});
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
});

http.listen(0, "127.0.0.1", () => console.log(`listening ${http.address().port} ${options.name}`));

process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
