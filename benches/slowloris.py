#!/usr/bin/env python3
"""What slow clients cost the others.

Thousands of connections drip a request's head or its body, or sip an answer, while another client asks at
an even pace. Prints the other client's latency and Burdock's memory before, during and after, and how
the slow ones ended.

    cargo build --release && python3 benches/slowloris.py
    python3 benches/slowloris.py --kind body --connections 5000 --limits "min_upload: 1KiB"

Needs nothing but Python 3.11 and about as many descriptors as twice the connections.
"""

import argparse
import asyncio
import collections
import pathlib
import re
import resource
import socket
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
HEADS = {
    "head": b"GET / HTTP/1.1\r\nHost: a\r\nX-Drip: ",
    "body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n",
    "answer": b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n",
}
BIG = b"x" * (8 << 20)


async def instance(reader, writer):
    """Answers GET at once, with much for /big, and POST when its body has come."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.I)
            if length:
                await reader.readexactly(int(length.group(1)))
            body = BIG if head.startswith(b"GET /big") else b"hello"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
        writer.close()


async def drip(address, kind, ends, until):
    """One slow client: a byte every two seconds, one way or the other."""
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(small, address)
        await loop.sock_sendall(small, HEADS[kind])
        while time.monotonic() < until:
            if kind == "answer":
                if not await loop.sock_recv(small, 1):
                    raise ConnectionError
                await asyncio.sleep(2)
                continue
            try:
                got = await asyncio.wait_for(loop.sock_recv(small, 64), 2)
                ends[got[9:12].decode() or "closed"] += 1
                return
            except TimeoutError:
                await loop.sock_sendall(small, b"x")
        ends["still there"] += 1
    except OSError as error:
        ends[type(error).__name__] += 1
    finally:
        small.close()


async def pace(address, seconds, per_second=50):
    """An ordinary client's latencies in milliseconds, each request on a connection of its own."""
    taken, tasks = [], []

    async def ask():
        begun = time.perf_counter()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200"), answer
        taken.append((time.perf_counter() - begun) * 1000)

    begun = time.monotonic()
    for n in range(int(seconds * per_second)):
        await asyncio.sleep(max(0, begun + n / per_second - time.monotonic()))
        tasks.append(asyncio.create_task(ask()))
    await asyncio.gather(*tasks)
    taken.sort()
    return {f"p{p}": round(taken[int(len(taken) * p / 100) - 1], 1) for p in (50, 99, 100)}


def resident(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024


def errors(admin):
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r'burdock_errors_total{reason="(\w+)"} (\d+)', text)
    return {reason: int(count) for reason, count in found if count != "0"}


def serve(arguments, port, folder):
    config = pathlib.Path(folder) / "burdock.yaml"
    config.write_text(
        "listeners: [127.0.0.1:0]\nadmin: { address: 127.0.0.1:0 }\nworkers: 1\naccess_log: false\n"
        f"limits: {{ {arguments.limits} }}\ninstances: [127.0.0.1:{port}]\n"
    )
    process = subprocess.Popen(
        [arguments.burdock, "run", "-c", config], stdout=subprocess.PIPE, text=True
    )
    found = {}
    while len(found) < 2:
        line = process.stdout.readline()
        assert line, "burdock ended"
        if told := re.search(r"(admin )?listening.*?(127\.0\.0\.1:\d+)", line):
            found["admin" if told.group(1) else "clients"] = told.group(2)
    host, port = found["clients"].split(":")
    return process, (host, int(port)), found["admin"]


async def measure(arguments):
    server = await asyncio.start_server(instance, "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        process, address, admin = serve(arguments, port, folder)
        try:
            show = lambda when, what: print(f"{when:8} {what}  {resident(process.pid):.1f} MiB")
            show("before", await pace(address, 5))
            ends = collections.Counter()
            until = time.monotonic() + arguments.seconds
            slow = []
            for _ in range(arguments.connections):
                slow.append(asyncio.create_task(drip(address, arguments.kind, ends, until)))
                if len(slow) % 50 == 0:
                    await asyncio.sleep(0.01)
            for _ in range(int(arguments.seconds / 5)):
                show("during", await pace(address, 5))
            await asyncio.gather(*slow)
            show("after", await pace(address, 5))
            print("slow ones ended:", dict(ends))
            print("counted:", errors(admin))
        finally:
            process.terminate()
            process.wait(40)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--burdock", default=ROOT / "target/release/burdock")
    parser.add_argument("--kind", choices=HEADS, default="head")
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--limits", default="min_upload: 1KiB, min_download: 1KiB")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
