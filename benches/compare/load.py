"""The clients and the instances: wrk, h2load and `ends`, and what they tell."""

import json, re, socket, subprocess

from peers import ENDS
from processes import end, free_port, wait_for


class Failed(Exception):
    """A client got no result: there is no sample."""


def failed(text):
    raise Failed(text)


def output(command):
    done = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.stdout if done.returncode == 0 else failed(done.stdout)


def wrk(running, path, connections, seconds, script=None, headers=(), tls=False):
    """Requests, and waits of a closed loop, in which slow answers keep later requests from being sent."""
    # Some have no certificate for a client that names nobody (RFC 6066 section 3), as one of an address does.
    origin = f"https://localhost:{running.port}" if tls else f"http://127.0.0.1:{running.port}"
    extra = [word for header in headers for word in ("-H", header)] + (["-s", script] if script else [])
    text = output(["wrk", "-t1", f"-c{connections}", f"-d{max(seconds, 1)}s", "--latency", "--timeout", "10s", *extra,
                   f"{origin}{path}"])
    requests = int(re.search(r"(\d+) requests in", text).group(1))
    if "Non-2xx" in text or not requests:
        failed(f"{running.name}: {text}")
    waits = {name: time_us(re.search(rf"(?m)^\s+{share}%\s+(\S+)", text).group(1)) for name, share in [("p50_us", 50), ("p99_us", 99)]}
    errors = re.search(r"Socket errors: (.*)", text)
    took = time_us(re.search(r"requests in ([^,]+),", text).group(1)) / 1e6
    return {"requests": requests, "rate": requests / took, **waits} | ({"errors": errors.group(1)} if errors else {})


def time_us(text):
    number, unit = re.match(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[unit]


def h2load(running, path, connections, streams, seconds):
    text = output(["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{max(seconds, 1)}",
                   f"--connect-to=127.0.0.1:{running.port}", f"https://localhost:{running.port}{path}"])
    requests = int(re.search(r"(\d+) 2xx", text).group(1))
    if "Application protocol: h2" not in text or not requests:
        failed(f"{running.name}: {text}")
    mean = re.search(r"time for request:\s+\S+\s+\S+\s+(\S+)", text).group(1)
    return {"requests": requests, "rate": requests / max(seconds, 1), "mean_us": time_us(mean)}


def cookies(running, count=16):
    """As many sessions as the proxy gives; one that gives none has the client's own."""
    found = []
    for turn in range(count):
        head = get(running.port)[0]
        match = re.search(rb"(?im)^set-cookie: ([^;\r]+)", head)
        found.append(match.group(1).decode() if match else f"session={turn}")
    return found


def get(port):
    """The head and the body of an answer on a new connection."""
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.sendall(b"GET /50 HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        data = b""
        while chunk := s.recv(65536):
            data += chunk
    return data.partition(b"\r\n\r\n")[::2]


def sessions(path, jar):
    """A script for wrk: requests take turns with the cookies."""
    rows = ",".join(json.dumps(cookie) for cookie in jar)
    path.write_text(
        f"local jar = {{{rows}}}\nlocal ready = {{}}\nlocal turn = 0\n"
        "init = function() for i, c in ipairs(jar) do\n"
        "  ready[i] = wrk.format('GET', '/50', {['Host'] = 'bench', ['Cookie'] = c}) end end\n"
        "request = function() turn = turn % #ready + 1; return ready[turn] end\n"
    )
    return path


def uploads(path, size):
    """A script for wrk: each request has a body."""
    path.write_text(f"wrk.method = 'POST'\nwrk.body = string.rep('x', {size})\n")
    return path


class Client:
    """A process of `ends` that answers in lines of JSON."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen([str(ENDS), *map(str, arguments)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def hear(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else failed("a client ended early")

    def ask(self, command):
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self.hear()

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Instances:
    """One process that is every instance: it answers on all addresses of the loopback network."""

    def __init__(self):
        self.ports = [free_port(), free_port()]
        self.process = subprocess.Popen([str(ENDS), "instance", *map(str, self.ports)])
        self.pid = self.process.pid
        for port in self.ports:
            wait_for(port)

    def some(self, count, port=0):
        """Addresses of as many, on the first port or the second."""
        return tuple((f"127.{1 + n // 62500}.{n // 250 % 250}.{n % 250 + 1}", self.ports[port]) for n in range(count))

    def end(self):
        end([self.pid])
        self.process.wait()
