"""Processes on this machine: ports for them, their end, and what the kernel says that they cost.

Shared by the programs of this folder; knows none of them."""

import os, random, resource, signal, socket, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BURDOCK = Path(os.environ.get("BURDOCK_BIN", ROOT / "target/release/burdock"))


def ports():
    """Ports that nobody listens on. None of them is one that the kernel gives to a connection, which would
    take it between this look and the bind of whom it is for; and none is given twice."""
    lowest_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    # Where the kernel has nearly all of them there is no better way.
    begin, end = 10240, lowest_ephemeral if lowest_ephemeral > 12000 else 32768
    start = random.randrange(end - begin)
    for step in range(end - begin):
        port = begin + (start + step) % (end - begin)
        with socket.socket() as s:
            # As a server would: connections of an earlier run that linger are no hindrance.
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port
    sys.exit(f"no port is free from {begin} to {end - 1}")


PORTS = ports()


def free_port():
    return next(PORTS)


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
    return hard


def end(children):
    for child in children:
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass


def tree(pid):
    """A process and all that descend from it."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except FileNotFoundError:
                pass
    return found


def cpu(pid):
    """Nanoseconds on a processor, user and system, of all threads."""
    total = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(task.read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total


def resident(pid):
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))
