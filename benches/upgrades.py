#!/usr/bin/env python3
"""What clients notice of upgrades: one process after another takes over under load.

    cargo build --release --locked --bins
    python3 benches/upgrades.py [--upgrades 20] [--tunnels 2000] [--rate 400]

Requests go out by the clock over kept connections, half of them with a new connection each, and
are never tried again by the client: whatever goes wrong counts. Every tunnel that is closed is
opened anew, after the pause that its client would make. Two instances, all of it on loopback, in
one Python process. `BURDOCK_BIN` puts another build under test."""

import argparse, asyncio, base64, os, random, resource, struct, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BURDOCK = os.environ.get("BURDOCK_BIN", ROOT / "target/release/burdock")
YAML = """
workers: 2
listeners: ["127.0.0.1:{port}"]
admin: off
access_log: false
instances: [{instances}]
session_affinity: true
readiness_check: {{ path: /ready, check_interval: 1s }}
upgrade: {{ timeout: 6s, spread: 5s }}
"""


async def head(reader):
    return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")


async def instance(reader, writer):
    """Answers requests with a byte, and upgrades by echoing frames until a Close."""
    try:
        while True:
            request = await head(reader)
            if "upgrade: websocket" not in request.lower():
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                continue
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                         b"Connection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n")
            while True:
                opcode, payload = await frame(reader)
                writer.write(bytes([0x80 | opcode, len(payload)]) + payload)
                if opcode == 8:
                    return
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def frame(reader):
    first, second = await reader.readexactly(2)
    mask = await reader.readexactly(4) if second & 0x80 else b"\0\0\0\0"
    payload = await reader.readexactly(second & 0x7f)
    return first & 15, bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


class Seen:
    def __init__(self):
        self.requests = self.opened = self.waiting = self.left = 0
        self.failed, self.closes, self.waits = [], {}, []
        self.over = False


async def tunnel(port, seen):
    while not seen.over:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            key = base64.b64encode(os.urandom(16)).decode()
            writer.write(f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
            answer = await head(reader)
            if " 101 " not in answer.split("\r\n")[0] + " ":
                raise ConnectionError(answer.split("\r\n")[0])
            seen.opened += 1
        except (asyncio.IncompleteReadError, ConnectionError, OSError) as error:
            seen.failed.append(f"tunnel: {error!r}")
            continue
        seen.waiting += 1
        code = 1006
        try:
            opcode, payload = await frame(reader)
            code = struct.unpack("!H", payload[:2])[0] if opcode == 8 else f"opcode {opcode}"
            writer.write(bytes([0x88, 0x80 | len(payload)]) + b"\0\0\0\0" + payload)
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            code = None
            raise
        finally:
            seen.waiting -= 1
            if code is not None:
                seen.closes[code] = seen.closes.get(code, 0) + 1
            writer.close()
        await asyncio.sleep(random.random())


async def request(port, kept, seen, due):
    # As every client does, a connection that was closed while it was kept is left; one that is closed
    # under a request is a failure.
    while kept and kept[-1][0].at_eof():
        kept.pop()
        seen.left += 1
    fresh = not kept or random.random() < 0.5
    try:
        if fresh:
            connection = await asyncio.open_connection("127.0.0.1", port)
        else:
            connection = kept.pop()
        reader, writer = connection
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = (await head(reader)).lower()
        await reader.readexactly(2)
        if not answer.startswith("http/1.1 200"):
            raise ConnectionError(answer.split("\r\n")[0])
        seen.waits.append(time.monotonic() - due)
        if "connection: close" in answer or len(kept) > 100:
            writer.close()
        else:
            kept.append(connection)
    except (asyncio.IncompleteReadError, ConnectionError, OSError) as error:
        seen.failed.append(f"{'new' if fresh else 'kept'} connection: {error!r}")
    seen.requests += 1


async def load(port, rate, seen):
    kept, tasks, due = [], set(), time.monotonic()
    while not seen.over:
        due += 1 / rate
        await asyncio.sleep(max(0, due - time.monotonic()))
        task = asyncio.create_task(request(port, kept, seen, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


async def upgrade(pid_file):
    command = [str(BURDOCK), "upgrade", "--pid-file", pid_file]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    await process.communicate()
    if process.returncode != 0:
        sys.exit("an upgrade failed")


def is_alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


async def measure(arguments):
    seen, tunnels = Seen(), []
    servers = [await asyncio.start_server(instance, "127.0.0.1", 0, backlog=4096) for _ in range(2)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    probe = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = probe.sockets[0].getsockname()[1]
    probe.close()
    with tempfile.TemporaryDirectory() as folder:
        config, pid_file = Path(folder) / "burdock.yaml", Path(folder) / "pid"
        instances = ", ".join(f"127.0.0.1:{each}" for each in ports)
        config.write_text(YAML.format(port=port, instances=instances))
        subprocess.Popen([str(BURDOCK), "run", "-c", str(config), "--pid-file", str(pid_file)],
                         stdout=subprocess.DEVNULL)
        while not pid_file.exists():
            await asyncio.sleep(0.01)
        for _ in range(arguments.tunnels):
            tunnels.append(asyncio.create_task(tunnel(port, seen)))
            await asyncio.sleep(0.001)
        while seen.waiting < arguments.tunnels:
            await asyncio.sleep(0.05)
        loading = asyncio.create_task(load(port, arguments.rate, seen))
        took, before = [], [int(pid_file.read_text())]
        for _ in range(arguments.upgrades):
            await asyncio.sleep(0.5)
            begin = time.monotonic()
            await upgrade(str(pid_file))
            took.append(time.monotonic() - begin)
            while any(is_alive(pid) for pid in before):
                if time.monotonic() - begin > 60:
                    sys.exit("an old process does not end")
                await asyncio.sleep(0.05)
            before.append(int(pid_file.read_text()))
        await asyncio.sleep(1)
        seen.over = True
        await loading
        for each in tunnels:
            each.cancel()
        os.kill(int(pid_file.read_text()), 15)
    waits = sorted(seen.waits)
    print(f"{arguments.upgrades} upgrades, each ready after {sorted(took)[len(took) // 2] * 1000:.0f} ms "
          f"(longest {max(took) * 1000:.0f} ms)")
    print(f"requests {seen.requests}, failed {len(seen.failed)}, kept connections left {seen.left}; wait p50 {waits[len(waits) // 2] * 1000:.1f} ms, "
          f"p99 {waits[len(waits) * 99 // 100] * 1000:.1f} ms, longest {waits[-1] * 1000:.0f} ms")
    print(f"tunnels opened {seen.opened}, closed by code {seen.closes}")
    for failure in seen.failed[:10]:
        print("  ", failure)
    sys.stdout.flush()
    # Thousands of connections are open, and nobody waits for their end.
    os._exit(1 if seen.failed else 0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--upgrades", type=int, default=20)
    parser.add_argument("--tunnels", type=int, default=2000)
    parser.add_argument("--rate", type=int, default=400)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
