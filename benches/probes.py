#!/usr/bin/env python3
"""What active checks cost: CPU for 1,000 instances that are probed every 5 s.

    cargo build --release && python3 benches/probes.py [--rounds 5] [--seconds 10] [OTHER_BINARY ...]

Instances are as many listening sockets of one other process, on addresses of the loopback network.
CPU is what the kernel's scheduler counted for all threads of Burdock; it includes what the loopback
interface makes a sender do for the receiver. Every binary probes the same instances in the same
seconds, so that what else the machine does meets all of them; the median round is printed.
"""

import argparse, selectors, socket, statistics, subprocess, sys, tempfile, time
from pathlib import Path

from processes import BURDOCK, cpu, end, free_port, raise_descriptor_limit

INSTANCES = 1000
INTERVAL = 5

CHECKS = {
    "GET": "path: /healthz",
    "gRPC": 'grpc: ""',
    "TCP": "port: none",
}

HTTP = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def field(name, value):
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


# RFC 9113 section 6: SETTINGS and its ACK, HEADERS, DATA with SERVING, trailers.
GRPC = b"".join([
    frame(4, 0, 0, b""),
    frame(4, 1, 0, b""),
    frame(1, 4, 1, b"\x88" + field(b"content-type", b"application/grpc")),
    frame(0, 0, 1, b"\0\0\0\0\x02\x08\x01"),
    frame(1, 5, 1, field(b"grpc-status", b"0")),
])


def answer(check, seen):
    """What to send after `seen`, and whether to close then."""
    if check == "GET" and seen.endswith(b"\r\n\r\n"):
        return HTTP, True
    if check == "gRPC" and seen.startswith(b"PRI") and seen.endswith(b"\0\0\0\0\0"):
        return GRPC, False
    return b"", False


def serve(check, port):
    """The instances, for as long as the parent lives."""
    poll = selectors.DefaultSelector()
    for n in range(INSTANCES):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address(n), port))
        listener.listen(64)
        listener.setblocking(False)
        poll.register(listener, selectors.EVENT_READ)
    print("ready", flush=True)
    seen = {}
    while True:
        for key, _ in poll.select():
            one = key.fileobj
            if one not in seen and key.data is None:
                connection, _ = one.accept()
                connection.setblocking(False)
                poll.register(connection, selectors.EVENT_READ, "connection")
                seen[connection] = b""
                continue
            try:
                data = one.recv(4096)
            except OSError:
                data = b""
            seen[one] += data
            out, closes = answer(check, seen[one]) if data else (b"", True)
            if out:
                one.sendall(out)
                seen[one] = b""
            if closes:
                poll.unregister(one)
                del seen[one]
                one.close()


def address(n):
    return f"127.1.{n // 250}.{n % 250 + 1}"


def probing(folder, place, binary, check, port):
    instances = "".join(f"  - {address(n)}:{port}\n" for n in range(INSTANCES))
    text = (f"workers: 1\nlisteners: ['127.0.0.1:0']\nadmin: off\naccess_log: false\n"
            f"readiness_check: {{ {CHECKS[check]}, check_interval: {INTERVAL}s }}\ninstances:\n{instances}")
    (folder / f"{place}.yaml").write_text(text)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([binary, "run", "-c", folder / f"{place}.yaml", "--log-level", "error"], **quiet).pid


def measure(pids, seconds):
    before, begin = [cpu(pid) for pid in pids], time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - begin
    return [(cpu(pid) - was) / 1e7 / passed for pid, was in zip(pids, before)]


def main():
    if sys.argv[1:2] == ["--serve"]:
        raise_descriptor_limit()
        return serve(sys.argv[2], int(sys.argv[3]))
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=10)
    options.add_argument("others", nargs="*", type=Path, help="other builds to put beside it")
    options = options.parse_args()
    raise_descriptor_limit()
    binaries = [BURDOCK, *options.others]
    print(f"{'% of a core':12}" + "".join(f"{str(binary)[-40:]:>42}" for binary in binaries))
    for check in CHECKS:
        children, port = [], free_port()
        with tempfile.TemporaryDirectory() as folder:
            try:
                argv = [sys.executable, __file__, "--serve", check, str(port)]
                server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
                children.append(server.pid)
                server.stdout.readline()
                pids = [probing(Path(folder), n, binary, check, port) for n, binary in enumerate(binaries)]
                children += pids
                # First probes are spread over an interval.
                time.sleep(2 * INTERVAL)
                rounds = [measure(pids, options.seconds) for _ in range(options.rounds)]
                medians = [statistics.median(column) for column in zip(*rounds)]
                print(f"{check:12}" + "".join(f"{median:42.2f}" for median in medians), flush=True)
            finally:
                end(children)


if __name__ == "__main__":
    main()
