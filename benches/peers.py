"""Burdock, HAProxy and nginx before the same two upstreams, one worker each, and what the kernel
says that they cost. Shared by the programs beside it."""

import os, resource, signal, socket, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BURDOCK = Path(os.environ.get("BURDOCK_BIN", ROOT / "target/release/burdock"))

# https://docs.haproxy.org: nbthread, keep-alive to servers is the default; httplog is off. A tunnel
# is left to `timeout tunnel` once both sides have switched protocols.
HAPROXY = """
global
  nbthread 1
  maxconn 9900
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
  option forwardfor
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  balance roundrobin
  http-reuse aggressive
  cookie BURDOCK insert indirect nocache
  server s1 127.0.0.1:{a} cookie s1
  server s2 127.0.0.1:{b} cookie s2
"""

# nginx has no cookie affinity in its open version; hash on the cookie is its nearest. WebSockets as
# in https://nginx.org/en/docs/http/websocket.html.
NGINX = """
worker_processes 1; daemon off; master_process off; error_log {dir}/px.log crit; pid {dir}/px.pid;
worker_rlimit_nofile 20000;
events {{ worker_connections 32000; }}
http {{ access_log off; keepalive_requests 100000000;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream u {{ hash $cookie_BURDOCK consistent; server 127.0.0.1:{a}; server 127.0.0.1:{b};
               keepalive 128; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
      proxy_read_timeout 1h; }} }} }}
"""

BURDOCK_YAML = """
workers: 1
listeners: ["127.0.0.1:{port}"]
admin: off
access_log: {log}
instances: [127.0.0.1:{a}, 127.0.0.1:{b}]
session_affinity: true
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, deadline=10):
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit(f"nothing listens on {port}")


def raise_descriptor_limit():
    """Children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def end(children):
    for child in children:
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass


def cpu(pid):
    """Nanoseconds on a processor, user and system, of all threads."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            pass
    return total


def resident(pid):
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    return 0


class Proxy:
    def __init__(self, name, argv, port):
        self.name, self.port = name, port
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        wait_for(port)
        self.pid = self.process.pid


def burdock(folder, name, text, **values):
    """A Burdock that serves the configuration `text`, kept in a file that may be changed later."""
    port = free_port()
    path = folder / f"{name}.yaml"
    path.write_text(text.format(port=port, **values))
    return Proxy(name, [str(BURDOCK), "run", "-c", str(path), "--log-format", "json"], port)


def proxies(folder, a, b):
    def write(name, text, port):
        path = folder / name
        path.write_text(text.format(dir=folder, a=a, b=b, port=port))
        return str(path)

    started = [
        burdock(folder, name, BURDOCK_YAML, log=log, a=a, b=b)
        for name, log in [("burdock", "true"), ("burdock, no access log", "false")]
    ]
    port = free_port()
    started.append(Proxy("haproxy", ["haproxy", "-db", "-q", "-f", write("haproxy.cfg", HAPROXY, port)], port))
    port = free_port()
    started.append(Proxy("nginx", ["nginx", "-c", write("nginx.conf", NGINX, port), "-p", str(folder)], port))
    return started
