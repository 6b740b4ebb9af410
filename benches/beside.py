#!/usr/bin/env python3
"""CPU per request, beside HAProxy and nginx.

    cargo build --release && python3 benches/beside.py [--rounds 5] [--seconds 4]

Needs nginx, haproxy and wrk (Debian's packages of those names). One worker each; the two
upstreams are two listeners of one nginx that answers 50 bytes. Affinity is on: 16 sessions bring
their cookie with each request. CPU is what the kernel's scheduler counted for all threads of the
proxy (`/proc/PID/task/*/schedstat`) divided by wrk's count of requests; rounds are interleaved,
the median is printed, and ratios to HAProxy are what can be compared between machines.
"""

import argparse, re, socket, statistics, subprocess, sys, tempfile
from pathlib import Path

from peers import cpu, end, free_port, proxies, raise_descriptor_limit, wait_for

UPSTREAM = """
worker_processes 1; daemon off; master_process off; error_log {dir}/up.log crit; pid {dir}/up.pid;
events {{ worker_connections 19000; }}
http {{ access_log off; keepalive_requests 100000000;
  server {{ listen 127.0.0.1:{a} backlog=4096; listen 127.0.0.1:{b} backlog=4096;
            location / {{ return 200 "01234567890123456789012345678901234567890123456789"; }} }} }}
"""


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


def measure(proxy, script, seconds, connections):
    """CPU microseconds per request, and requests per second."""
    before = cpu(proxy.pid)
    text = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{proxy.port}/"],
        capture_output=True, text=True, check=True).stdout
    used = cpu(proxy.pid) - before
    requests = int(re.search(r"(\d+) requests in", text).group(1))
    if "Non-2xx" in text:
        sys.exit(f"{proxy.name}: {text}")
    return used / requests / 1000, requests / seconds


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=4)
    options.add_argument("--connections", type=int, default=64)
    options = options.parse_args()
    raise_descriptor_limit()
    children = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        try:
            a, b = free_port(), free_port()
            (folder / "up.conf").write_text(UPSTREAM.format(dir=folder, a=a, b=b))
            children.append(subprocess.Popen(["nginx", "-c", str(folder / "up.conf"), "-p", str(folder)]).pid)
            wait_for(a)
            started = proxies(folder, a, b)
            children += [proxy.pid for proxy in started]
            scripts = [lua(folder / f"{i}.lua", cookies(proxy.port)) for i, proxy in enumerate(started)]
            samples = {proxy.name: [] for proxy in started}
            for _ in range(options.rounds):
                for proxy, script in zip(started, scripts):
                    samples[proxy.name].append(measure(proxy, script, options.seconds, options.connections))
            medians = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in samples.items()}
            print(f"{'proxy':26}{'CPU us/request':>16}{'to haproxy':>12}{'requests/s':>12}")
            for name, (used, rate) in medians.items():
                print(f"{name:26}{used:16.2f}{used / medians['haproxy'][0]:12.2f}{rate:12.0f}")
        finally:
            end(children)


if __name__ == "__main__":
    main()
