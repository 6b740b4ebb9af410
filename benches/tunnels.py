#!/usr/bin/env python3
"""What WebSockets cost, beside HAProxy and nginx, and how a drain of many goes.

    cargo build --release --locked --bins --examples
    python3 benches/tunnels.py [--rounds 5] [--seconds 4] [--tunnels 9000] [--opens 10000]

Needs nginx and haproxy (Debian's packages of those names), and a limit of open files of more than
twice `--tunnels`. One worker each; clients and the echo servers are processes of `benches/ws.rs`.
CPU is what the kernel's scheduler counted for all threads of the proxy, memory is `Rss` of
`smaps_rollup`. Rounds are interleaved and medians printed. 0 leaves a part out.

- idle: bytes per tunnel as opened, and after one message each way; CPU in the 20 s after that.
- drain (Burdock alone): the instance of all tunnels is taken out of the configuration, with
  `drain: { timeout: 10s, spread: 10s }`; how they ended, and when.
- echo: 50 tunnels, each of which sends its next message when the last has come back.
- open: a client opens tunnels, 64 at a time, each closed with a Close that is answered.
"""

import argparse, json, statistics, subprocess, sys, tempfile, time
from pathlib import Path

from peers import ROOT, burdock, cpu, end, free_port, proxies, raise_descriptor_limit, resident, wait_for

WS = ROOT / "target/release/examples/ws"
TALKERS = 50
SIZES = [64, 16384]
AT_ONCE = 64
IDLE_SECONDS = 20

DRAIN_YAML = """
workers: 1
listeners: ["127.0.0.1:{port}"]
admin: off
access_log: true
instances: [127.0.0.1:{instance}]
drain: {{ timeout: 10s, spread: 10s }}
"""


class Client:
    """A process of `ws` that answers in lines of JSON."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen([str(WS), *map(str, arguments)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def hear(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else sys.exit("the client ended early")

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.hear()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def address(proxy):
    return f"127.0.0.1:{proxy.port}"


def idle(proxy, count):
    """Bytes per tunnel before and after its first message, and per cent of a core while idle."""
    empty = resident(proxy.pid)
    client = Client("hold", address(proxy), count)
    client.hear()
    opened = resident(proxy.pid)
    client.ask("echo")
    echoed = resident(proxy.pid)
    # What follows the last message at once, such as frees, is not idleness.
    time.sleep(1)
    begin = cpu(proxy.pid)
    time.sleep(IDLE_SECONDS)
    used = (cpu(proxy.pid) - begin) / IDLE_SECONDS / 1e7
    client.end()
    return (opened - empty) / count, (echoed - empty) / count, used


def drain(folder, a, b, count, children):
    proxy = burdock(folder, "drained", DRAIN_YAML, instance=a)
    children.append(proxy.pid)
    client = Client("hold", address(proxy), count)
    client.hear()
    client.ask("echo")
    (folder / "new.yaml").write_text(DRAIN_YAML.format(port=proxy.port, instance=b))
    (folder / "new.yaml").rename(folder / "drained.yaml")
    result = client.ask("wait")
    windows = result["windows"]
    seconds = [sum(windows[at:at + 10]) for at in range(0, len(windows), 10)]
    print(f"\ndrain of {count} tunnels over 10 s")
    for said, number in result["ends"].items():
        print(f"  {number} x {said}")
    print(f"  in each second: {' '.join(map(str, seconds))}")
    print(f"  in the fullest 100 ms: {max(windows)}, evenly it would be {count // 100}")


def talk(proxy, size, seconds):
    """CPU microseconds per message and its echo, median wait, 99th percentile, messages per second."""
    client = Client("talk", address(proxy), TALKERS, size, seconds)
    client.hear()
    begin = cpu(proxy.pid)
    result = client.hear()
    used = (cpu(proxy.pid) - begin) / 1000
    client.end()
    return used / result["messages"], result["p50_us"], result["p99_us"], result["messages"] / seconds


def opens(proxy, count):
    """Tunnels opened and closed per second on a processor, and per second."""
    begin = cpu(proxy.pid)
    client = Client("open", address(proxy), count, AT_ONCE)
    result = client.hear()
    used = (cpu(proxy.pid) - begin) / 1e9
    client.end()
    return result["opened"] / used, result["opened"] / result["seconds"]


def table(title, columns, rows):
    """Each column's ratio to HAProxy's stands behind it."""
    print(f"\n{title:26}" + "".join(f"{column:>16}{'':8}" for column in columns))
    for name, values in rows.items():
        cells = [f"{value:16.2f} ({value / base:4.2f}) " if base else f"{value:16.2f}{'':8}"
                 for value, base in zip(values, rows["haproxy"])]
        print(f"{name:26}" + "".join(cells), flush=True)


def rounds(proxies, count, measure):
    samples = {proxy.name: [] for proxy in proxies}
    for _ in range(count):
        for proxy in proxies:
            samples[proxy.name].append(measure(proxy))
    return {name: [statistics.median(column) for column in zip(*rows)] for name, rows in samples.items()}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=4)
    options.add_argument("--tunnels", type=int, default=9000)
    options.add_argument("--opens", type=int, default=10000)
    options = options.parse_args()
    raise_descriptor_limit()
    children = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        try:
            a, b = free_port(), free_port()
            children.append(subprocess.Popen([str(WS), "echo", str(a), str(b)]).pid)
            wait_for(a), wait_for(b)
            started = proxies(folder, a, b)
            children += [proxy.pid for proxy in started]
            if options.tunnels:
                rows = {proxy.name: idle(proxy, options.tunnels) for proxy in started}
                table(f"{options.tunnels} idle tunnels", ["bytes, opened", "bytes, used", "idle CPU %"], rows)
                drain(folder, a, b, options.tunnels, children)
            for size in SIZES if options.rounds and options.seconds else []:
                rows = rounds(started, options.rounds, lambda proxy: talk(proxy, size, options.seconds))
                table(f"echo of {size} bytes", ["CPU us/message", "p50 us", "p99 us", "messages/s"], rows)
            if options.opens and options.rounds:
                rows = rounds(started, options.rounds, lambda proxy: opens(proxy, options.opens))
                table("opens and closes", ["per CPU second", "per second"], rows)
        finally:
            end(children)


if __name__ == "__main__":
    main()
