// A browser's cookie behaviour for socket.io-client on node. By itself the client starts each
// connection with an empty jar and ignores the cookie on a 101; a browser does neither.

import { NodeWebSocket, NodeXHR } from "socket.io-client";

export class BrowserCookies {
  #jar = null;

  get names() {
    return new Set(this.#jar ? [...this.#jar.cookies].map(([name]) => name) : []);
  }

  // The first engine's jar serves all later ones of the same client.
  #adopt(engine) {
    this.#jar ??= engine._cookieJar;
    engine._cookieJar = this.#jar;
  }

  transports(names) {
    const adopt = (engine) => this.#adopt(engine);
    const jar = () => this.#jar;

    class Polling extends NodeXHR {
      constructor(options) {
        adopt(options.socket);
        super(options);
      }
    }

    class WebSocket extends NodeWebSocket {
      constructor(options) {
        adopt(options.socket);
        super(options);
      }

      createSocket(uri, protocols, options) {
        const socket = super.createSocket(uri, protocols, options);
        socket.on("upgrade", (response) => jar().parseCookies(response.headers["set-cookie"]));
        socket.on("unexpected-response", (request, response) => {
          jar().parseCookies(response.headers["set-cookie"]);
          request.destroy();
          socket.emit("error", new Error(`handshake answered ${response.statusCode}`));
        });
        return socket;
      }
    }

    const classes = { polling: Polling, websocket: WebSocket };
    return names.map((name) => classes[name]);
  }
}
