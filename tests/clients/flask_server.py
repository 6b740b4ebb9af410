"""One Flask app that keeps its login sessions in process memory, as many small apps do.

Prints `listening PORT NAME`; ends when its standard input does.
"""

import argparse
import secrets
import sys
import threading

import flask
from werkzeug.serving import WSGIRequestHandler, make_server


def application(name):
    app = flask.Flask(name)
    counts = {}

    @app.post("/login")
    def login():
        session = secrets.token_hex(8)
        counts[session] = 0
        response = flask.jsonify(name=name)
        response.set_cookie("app_session", session, httponly=True)
        return response

    @app.post("/count")
    def count():
        session = flask.request.cookies.get("app_session")
        if session not in counts:
            return flask.jsonify(name=name, problem="not logged in here"), 401
        counts[session] += 1
        return flask.jsonify(name=name, count=counts[session])

    @app.get("/readyz")
    def readyz():
        return "ok\n"

    @app.get("/whoami")
    def whoami():
        return f"{name}\n"

    return app


class QuietRequests(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    name = parser.parse_args().name
    server = make_server(
        "127.0.0.1", 0, application(name), threaded=True, request_handler=QuietRequests
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"listening {server.server_port} {name}", flush=True)
    sys.stdin.read()
