"""A small app with state of its own, for deploy/docker/compose.yaml: it counts each client's visits.

    python3 deploy/docker/app.py --port 8000

Who comes without its cookie, or with one that another instance gave out, is a stranger and counted from 1.
"""

import argparse
import http.server
import itertools
import signal
import socket
import sys
from http.cookies import CookieError, SimpleCookie

COOKIE = "VISITOR"


class App(http.server.BaseHTTPRequestHandler):
    """Answers `/` with the name of this instance and the number of the visit; `/readyz`, `/healthz` with 200."""

    protocol_version = "HTTP/1.1"
    name = socket.gethostname()
    numbers = itertools.count(1)
    visits: dict[str, int] = {}

    def do_GET(self):
        if self.path in ("/readyz", "/healthz"):
            self.answer("ok\n")
            return
        visitor = self.visitor()
        self.visits[visitor] += 1
        self.answer(f"{self.name}: visit {self.visits[visitor]}\n", visitor)

    def visitor(self):
        try:
            given = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            given = None
        if given is not None and given.value in self.visits:
            return given.value
        visitor = f"{self.name}-{next(self.numbers)}"
        self.visits[visitor] = 0
        return visitor

    def answer(self, text, visitor=None):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        if visitor is not None:
            self.send_header("Set-Cookie", f"{COOKIE}={visitor}; Path=/; HttpOnly")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *values):
        pass


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, default=8000)
    arguments.add_argument("--name", default=App.name)
    given = arguments.parse_args()
    App.name = given.name
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with http.server.ThreadingHTTPServer(("", given.port), App) as server:
        print(f"listening on {server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
