// An echo server made of `ws`, with compression and subprotocols. /close?code=N&reason=T closes after
// the first message, /half ends its half of the connection without a Close.
//
// Prints `listening PORT NAME`; ends when its standard input does.

import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { WebSocketServer } from "ws";

const { values: options } = parseArgs({ options: { name: { type: "string" } } });

const http = createServer((_request, response) => response.end("ok\n"));
const server = new WebSocketServer({
  server: http,
  perMessageDeflate: { threshold: 0 },
  // Its own limit cuts a flood of pings at a moment that no two runs share.
  maxPendingAutoPongs: 0,
  handleProtocols: (offered) => ["v2.echo", "v1.echo"].find((name) => offered.has(name)) ?? false,
});

server.on("connection", (socket, request) => {
  const url = new URL(request.url, "http://server");
  // What a client sends wrong is the client's to see, in the Close that it gets.
  socket.on("error", () => {});
  socket.on("message", (data, isBinary) => {
    if (url.pathname === "/close") {
      const code = url.searchParams.get("code");
      socket.close(code && Number(code), url.searchParams.get("reason") ?? undefined);
    } else if (url.pathname === "/half") {
      request.socket.end();
    } else {
      socket.send(data, { binary: isBinary });
    }
  });
});

http.listen(0, "127.0.0.1", () => console.log(`listening ${http.address().port} ${options.name}`));

process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
