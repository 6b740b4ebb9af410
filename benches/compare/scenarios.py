"""What is measured. A scenario has points, a point has one sample for each peer and round, and
figures say what of a sample is shown, the first being what peers are ranked by."""

import time
from dataclasses import dataclass, field
from typing import Callable

from configuration import Wanted
from load import Client, cookies, get, h2load, sessions, uploads, wrk

TUNNELS = (1000, 5000, 9000)
GROWTH = (10, 1000, 10000)
TALKERS = 50
OPENED = 1500
RELOADS = 100
RELOAD_EVERY = 0.1

PER_REQUEST = [("cpu_us", "CPU us"), ("user_us", "user"), ("system_us", "system"), ("per_core", "a CPU second"),
               ("rate", "a second"), ("p50_us", "p50 us"), ("p99_us", "p99 us"), ("calls", "system calls"),
               ("resident_mb", "MB resident")]
FEWER = PER_REQUEST[:4]


@dataclass(frozen=True)
class Point:
    """`fresh`: each sample has a process of its own. `direct`: instances are asked without a proxy too."""

    label: str
    sample: Callable
    features: frozenset = frozenset()
    needs: frozenset = frozenset()
    fresh: bool = False
    direct: bool = False
    rounds: int = 99
    instances: int = 2


@dataclass(frozen=True)
class Scenario:
    letter: str
    title: str
    unit: str
    points: list
    figures: list = field(default_factory=lambda: PER_REQUEST)


def requests(of):
    """A point's sample: the cost of what `of` made, each request; system calls in a round of their own."""

    def sample(bench, running):
        meter = bench.meter(running)
        load, cost = meter.during(lambda: of(bench, running, bench.seconds))
        result = load | cost.per(load["requests"]) | {"resident_mb": meter.memory() / 1e6}
        if bench.counts_calls(running):
            counted, calls = meter.system_calls(lambda: of(bench, running, 1))
            result |= {"calls": calls / counted["requests"]} if calls else {}
        return result

    return sample


def plain(path, connections, **options):
    return requests(lambda bench, running, seconds: wrk(running, path, connections, seconds, **options))


def sticky(connections):
    def of(bench, running, seconds):
        path = running.folder / "sessions.lua"
        if not path.exists():
            sessions(path, cookies(running))
        return wrk(running, "/50", connections, seconds, script=path)

    return requests(of)


def upload(size, connections):
    def of(bench, running, seconds):
        return wrk(running, "/50", connections, seconds, script=uploads(running.folder / "upload.lua", size))

    return requests(of)


def idle(kind):
    """Bytes for each as their number grows in one process, and what of a core the last of them take."""

    def sample(bench, running):
        meter = bench.meter(running)
        # A first one, so that what any needs is there.
        get(running.port)
        empty, result, client = meter.memory(), {}, Client("hold", kind, f"127.0.0.1:{running.port}")
        opened = 0
        for count in TUNNELS:
            client.ask(count - opened)
            opened = count
            if kind == "tunnels":
                client.ask("echo")
            # What follows the last message at once, such as frees, is not idleness.
            time.sleep(0.5)
            result[f"bytes_{count}"] = (meter.memory() - empty) / count
        _, cost = meter.during(lambda: time.sleep(2))
        client.end()
        return result | {"idle_percent": cost.cpu / cost.wall * 100, "noise": cost.noise}

    return sample


def talk(size):
    def sample(bench, running):
        client = Client("talk", f"127.0.0.1:{running.port}", TALKERS, size, bench.seconds)
        client.hear()
        result, cost = bench.meter(running, client).during(client.hear)
        client.end()
        return result | {"rate": result["messages"] / bench.seconds} | cost.per(result["messages"])

    return sample


def opening(bench, running):
    def work():
        client = Client("open", f"127.0.0.1:{running.port}", OPENED, 64)
        result = client.hear()
        client.end()
        return result

    result, cost = bench.meter(running).during(work)
    return {"rate": result["opened"] / result["seconds"]} | cost.per(result["opened"])


def paced(share):
    """`share` of what the proxy can do, or of what the slowest can if `share` is of all."""

    def sample(bench, running):
        rate = share(bench, running) / 2
        client = Client("pace", f"127.0.0.1:{running.port}", "/50", round(rate), bench.seconds * 2, 64)
        result, cost = bench.meter(running, client).during(client.hear)
        client.end()
        return result | {"rate": rate, "noise": cost.noise}

    return sample


def reloads(bench, running):
    """Requests by the clock and idle tunnels while instances come and go."""
    sets = [Wanted(frozenset(), bench.instances.some(count)) for count in (3, 2)]
    held = Client("hold", "tunnels", f"127.0.0.1:{running.port}")
    held.ask(100)
    client = Client("pace", f"127.0.0.1:{running.port}", "/50", 1000, RELOADS * RELOAD_EVERY + 1, 64)
    begin, done = time.monotonic(), 0
    meter = bench.meter(running)
    before = meter.look()
    while done < RELOADS and time.monotonic() - begin < RELOADS * RELOAD_EVERY * 1.05:
        running.reload(sets[done % 2])
        done += 1
        time.sleep(max(0, begin + done * RELOAD_EVERY - time.monotonic()))
    result = client.hear()
    client.end()
    lost = held.ask("echo")["lost"]
    held.end()
    return result | {"lost": lost, "reloads": done, "noise": meter.since(before).noise,
                     "max_ms": result["max_us"] / 1e3, "p99_ms": result["p99_us"] / 1e3}


def grown(count):
    """Requests to so many instances, and how long after a change the first answer comes of the new ones."""

    def sample(bench, running):
        wrk(running, "/50", 64, bench.seconds)
        meter = bench.meter(running)
        load, cost = meter.during(lambda: wrk(running, "/50", 64, bench.seconds))
        result = load | cost.per(load["requests"]) | {"resident_mb": meter.memory() / 1e6}
        if "reload" in running.peer.can:
            result["reload_ms"] = change(bench, running, count) * 1e3
        return result

    return sample


def change(bench, running, count):
    wanted = str(bench.instances.ports[1]).encode()
    begin = time.monotonic()
    running.reload(Wanted(frozenset(), bench.instances.some(count, port=1)))
    while time.monotonic() - begin < 30:
        if get(running.port)[1].startswith(wanted):
            break
    return time.monotonic() - begin


def drain(bench, running):
    """The instance of all tunnels is taken away; how they ended, and when."""
    count, meter = TUNNELS[-1], bench.meter(running)
    held = Client("hold", "tunnels", f"127.0.0.1:{running.port}")
    held.ask(count)
    before = meter.look()
    running.reload(Wanted(frozenset({"drain"}), bench.instances.some(1, port=1)))
    ends = held.ask("wait")
    cost = meter.since(before)
    held.end()
    seconds = [sum(ends["windows"][at:at + 10]) for at in range(0, len(ends["windows"]), 10)]
    clean = sum(number for end, number in ends["ends"].items() if end.startswith("1012 "))
    return cost.per(count) | {"closed": clean, "others": count - clean, "fullest": max(ends["windows"]),
                              "second": max(seconds), "ends": ends["ends"]}


TLS, STICKY, TUNNEL, RELOAD, LOG = (frozenset({name}) for name in ("tls", "sticky", "tunnels", "reload", "log"))
CLOSE = ["Connection: close"]
BYTES = [(f"bytes_{count}", f"bytes, {count:,}") for count in reversed(TUNNELS)]
LATENCY = [("p99_us", "p99 us"), ("p50_us", "p50 us"), ("p999_us", "p99.9 us"), ("max_us", "longest us"), ("rate", "a second"),
           ("errors", "errors")]

SCENARIOS = {each.letter: each for each in [
    Scenario("a", "Small answers, affinity off", "request", [
        Point("64 connections", plain("/50", 64)), Point("512 connections", plain("/50", 512))]),
    Scenario("b", "Small answers, affinity by cookie and X-Forwarded-For", "request", [
        Point("64 connections", sticky(64), STICKY, STICKY), Point("512 connections", sticky(512), STICKY, STICKY)]),
    Scenario("c", "Bodies", "request", [
        Point("answers of 16 KiB", plain("/16384", 64)), Point("answers of 1 MiB", plain("/1048576", 16)),
        Point("uploads of 1 MiB", upload(1 << 20, 16))]),
    Scenario("d", "A new connection for each request", "request", [Point("64 at once", plain("/50", 64, headers=CLOSE))]),
    Scenario("e", "TLS 1.3", "request", [
        Point("a handshake for each request", plain("/50", 16, headers=CLOSE, tls=True), TLS, TLS),
        Point("64 kept connections", plain("/50", 64, tls=True), TLS, TLS)]),
    Scenario("f", "HTTP/2 over TLS", "request", [
        Point("16 connections, 8 streams each",
              requests(lambda bench, running, seconds: h2load(running, "/50", 16, 8, seconds)), TLS, TLS)]),
    Scenario("g", "Memory while idle", "connection", [
        Point("tunnels, after a message each", idle("tunnels"), needs=TUNNEL, fresh=True),
        Point("kept connections, after a request each", idle("connections"), fresh=True)],
        [*BYTES, ("idle_percent", "% of a core")]),
    Scenario("h", "Messages through 50 tunnels, and their echoes", "message", [
        Point("64 bytes", talk(64), needs=TUNNEL), Point("16 KiB", talk(16384), needs=TUNNEL)],
        [*FEWER, *PER_REQUEST[4:7]]),
    Scenario("i", "Tunnels opened and closed", "tunnel", [Point("64 at once", opening, needs=TUNNEL)], PER_REQUEST[:5]),
    Scenario("j", "Latency by the clock, 64 connections", "request", [
        Point("added, all at half of what the slowest can", paced(lambda bench, _: bench.slowest()), direct=True),
        Point("each at half of what it can", paced(lambda bench, running: bench.saturation(running)))], LATENCY),
    Scenario("k", f"{RELOADS} changes of instances under 1,000 requests a second", "request", [
        Point("100 tunnels beside", reloads, needs=RELOAD, fresh=True, rounds=1)],
        [("max_ms", "longest ms"), ("p99_ms", "p99 ms"), ("errors", "failed"), ("lost", "tunnels lost"), ("reloads", "reloads")]),
    Scenario("l", "Growth", "request", [
        Point(f"{count:,} instances", grown(count), needs=RELOAD, fresh=True, rounds=2, instances=count) for count in GROWTH],
        [*FEWER, ("reload_ms", "change, ms"), ("resident_mb", "MB resident")]),
    Scenario("n", f"A drain of {TUNNELS[-1]:,} tunnels within 10 s", "tunnel", [
        Point("Burdock alone", drain, frozenset({"drain"}), frozenset({"drain"}), fresh=True, rounds=1, instances=1)],
        [("cpu_us", "CPU us"), ("closed", "closed 1012"), ("others", "otherwise"), ("second", "most in 1 s"),
         ("fullest", "most in 0.1 s")]),
    Scenario("o", "Small answers with affinity, an access log and all that is told by default", "request", [
        Point("64 connections, Burdock alone", sticky(64), LOG, LOG)]),
]}
