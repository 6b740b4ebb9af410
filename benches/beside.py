#!/usr/bin/env python3
"""CPU per request and memory per idle tunnel, beside HAProxy and nginx.

    cargo build --release && python3 benches/beside.py [--rounds 5] [--seconds 4] [--tunnels 5000]

Needs nginx, haproxy and wrk (Debian's packages of those names). One worker each; the two
upstreams are two listeners of one nginx that answers 50 bytes. Affinity is on: 16 sessions bring
their cookie with each request. CPU is what the kernel's scheduler counted for all threads of the
proxy (`/proc/PID/task/*/schedstat`) divided by wrk's count of requests; rounds are interleaved,
the median is printed, and ratios to HAProxy are what can be compared between machines.
"""

import argparse, base64, os, re, resource, select, signal, socket, statistics, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BURDOCK = Path(os.environ.get("BURDOCK_BIN", ROOT / "target/release/burdock"))

UPSTREAM = """
worker_processes 1; daemon off; master_process off; error_log {dir}/up.log crit; pid {dir}/up.pid;
events {{ worker_connections 19000; }}
http {{ access_log off; keepalive_requests 100000000;
  server {{ listen 127.0.0.1:{a} backlog=4096; listen 127.0.0.1:{b} backlog=4096;
            location / {{ return 200 "01234567890123456789012345678901234567890123456789"; }} }} }}
"""

# https://docs.haproxy.org: nbthread, keep-alive to servers is the default; httplog is off.
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

# nginx has no cookie affinity in its open version; hash on the cookie is its nearest.
NGINX = """
worker_processes 1; daemon off; master_process off; error_log {dir}/px.log crit; pid {dir}/px.pid;
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
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


def cookies(port, count=16):
    found = []
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port), 5) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            data = b""
            while chunk := s.recv(65536):
                data += chunk
        match = re.search(rb"(?i)set-cookie: (BURDOCK=[^;\r]+)", data)
        found.append(match.group(1).decode() if match else f"BURDOCK=session{len(found)}")
    return found


def lua(path, jar):
    rows = ",".join(f'"{cookie}"' for cookie in jar)
    path.write_text(
        f"local jar = {{{rows}}}\nlocal ready = {{}}\nlocal turn = 0\n"
        "init = function() for i, c in ipairs(jar) do\n"
        "  ready[i] = wrk.format('GET', '/', {['Host'] = 'x', ['Cookie'] = c}) end end\n"
        "request = function() turn = turn % #ready + 1; return ready[turn] end\n"
    )
    return path


class Proxy:
    def __init__(self, name, argv, port):
        self.name, self.port = name, port
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        wait_for(port)
        self.samples, self.rates = [], []

    def round(self, script, seconds, connections):
        before = cpu(self.process.pid)
        text = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{self.port}/"],
            capture_output=True, text=True, check=True).stdout
        used = cpu(self.process.pid) - before
        requests = int(re.search(r"(\d+) requests in", text).group(1))
        if "Non-2xx" in text:
            sys.exit(f"{self.name}: {text}")
        self.samples.append(used / requests / 1000)
        self.rates.append(requests / seconds)


def proxies(folder, a, b):
    def write(name, text, **values):
        path = folder / name
        path.write_text(text.format(dir=folder, a=a, b=b, **values))
        return str(path)

    started = []
    for name, log in [("burdock", "true"), ("burdock, no access log", "false")]:
        port = free_port()
        config = write(f"burdock-{log}.yaml", BURDOCK_YAML, port=port, log=log)
        started.append(Proxy(name, [str(BURDOCK), "run", "-c", config, "--log-format", "json"], port))
    port = free_port()
    started.append(Proxy("haproxy", ["haproxy", "-db", "-q", "-f", write("haproxy.cfg", HAPROXY, port=port)], port))
    port = free_port()
    started.append(Proxy("nginx", ["nginx", "-c", write("nginx.conf", NGINX, port=port), "-p", str(folder)], port))
    return started


KEY = base64.b64encode(bytes(16)).decode()


def echo_server(port):
    """Answers any upgrade with a 101 and keeps the connection; a process of its own."""
    pid = os.fork()
    if pid:
        return pid
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    open_, upgraded = {}, set()
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                connection, _ = listener.accept()
                open_[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
                continue
            data = open_[fd].recv(65536)
            if not data:
                poll.unregister(fd)
                open_.pop(fd).close()
                upgraded.discard(fd)
            elif fd in upgraded:
                open_[fd].sendall(bytes([0x82, 4]) + b"pong")
            else:
                upgraded.add(fd)
                open_[fd].sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n")


def tunnels(proxy, count):
    """Bytes of resident memory for each of `count` tunnels that carried one message."""
    before = resident(proxy.process.pid)
    request = (f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n").encode()
    held = []
    for _ in range(count):
        s = socket.create_connection(("127.0.0.1", proxy.port), 10)
        s.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += s.recv(4096)
        if b" 101 " not in data.split(b"\r\n")[0]:
            sys.exit(f"{proxy.name}: {data[:100]}")
        s.sendall(bytes([0x82, 0x84, 0, 0, 0, 0]) + b"ping")
        if not s.recv(100):
            sys.exit(f"{proxy.name}: no echo")
        held.append(s)
    idle = cpu(proxy.process.pid)
    time.sleep(3)
    idle = (cpu(proxy.process.pid) - idle) / 3e9
    each = (resident(proxy.process.pid) - before) / count
    for s in held:
        s.close()
    return each, idle


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=4)
    options.add_argument("--connections", type=int, default=64)
    options.add_argument("--tunnels", type=int, default=5000)
    options = options.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    children = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        try:
            a, b = free_port(), free_port()
            (folder / "up.conf").write_text(UPSTREAM.format(dir=folder, a=a, b=b))
            children.append(subprocess.Popen(["nginx", "-c", str(folder / "up.conf"), "-p", str(folder)]).pid)
            wait_for(a)
            if options.rounds:
                started = proxies(folder, a, b)
                children += [proxy.process.pid for proxy in started]
                scripts = [lua(folder / f"{i}.lua", cookies(proxy.port)) for i, proxy in enumerate(started)]
                for _ in range(options.rounds):
                    for proxy, script in zip(started, scripts):
                        proxy.round(script, options.seconds, options.connections)
                base = statistics.median(next(p.samples for p in started if p.name == "haproxy"))
                print(f"{'proxy':26}{'CPU us/request':>16}{'to haproxy':>12}{'requests/s':>12}")
                for proxy in started:
                    median = statistics.median(proxy.samples)
                    print(f"{proxy.name:26}{median:16.2f}{median / base:12.2f}{statistics.median(proxy.rates):12.0f}")
            if options.tunnels:
                a, b = free_port(), free_port()
                children += [echo_server(a), echo_server(b)]
                wait_for(a), wait_for(b)
                started = proxies(folder, a, b)
                children += [proxy.process.pid for proxy in started]
                print(f"\n{'proxy':26}{'bytes/tunnel':>16}{'idle CPU %':>12}   at {options.tunnels} tunnels")
                for proxy in started:
                    if proxy.name != "burdock, no access log":
                        each, idle = tunnels(proxy, options.tunnels)
                        print(f"{proxy.name:26}{each:16.0f}{idle * 100:12.2f}")
        finally:
            for child in children:
                try:
                    os.kill(child, signal.SIGKILL)
                except ProcessLookupError:
                    pass


if __name__ == "__main__":
    main()
