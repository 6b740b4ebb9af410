#!/usr/bin/env python3
"""What clients notice of instances that fail: Burdock beside HAProxy, fault by fault.

    cargo build --release --locked --bins && sudo python3 benches/faults [--only kill,hang] [--json FILE]

Needs root, `ip` (iproute2) and haproxy (Debian's packages of those names). Six instances stand in
network namespaces of their own, which go when the program ends, however it does. README.md beside
this file says what the columns mean and what was measured.
"""

import argparse, asyncio, json, os, signal, sys, tempfile, time
from pathlib import Path

import balancers, cases
from hosts import Host, sweep
from load import Load

COLUMNS = ["fault", "balancer", "requests", "GET errors", "POST errors", "retried", "moved", "needlessly",
           "last touch s", "last error s", "p99 ms", "longest ms"]
WARM, PROBES = 1.5, 0.5
AFTER = 3.0
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def overlaps(intervals, since, until):
    return any(begin <= until and end >= since for begin, end in intervals)


def moves(answers, bad):
    """How often a session's instance changed, and how often the one that it left was fine while the
    request lasted that was the first to be answered by another."""
    moved = needless = 0
    by_session = {}
    for answer in sorted(answers, key=lambda it: it.done):
        if not answer.error:
            by_session.setdefault(answer.session, []).append(answer)
    for turn in by_session.values():
        for before, after in zip(turn, turn[1:]):
            if before.instance != after.instance:
                moved += 1
                needless += not overlaps(bad[before.instance], after.due, after.done)
    return moved, needless


def broken_counts(answers):
    """Answers whose count, within a life of an instance, did not grow; there must be none."""
    seen, wrong = set(), 0
    for answer in answers:
        place = (answer.session, answer.instance, answer.life, answer.count)
        wrong += not answer.error and place in seen
        seen.add(place)
    return wrong


def last_touch(lines, bad, begin, end):
    """From the fault to the beginning of the last request that was sent to a bad instance, by the
    balancer's own log: it says that the request was answered there, or tried more than once, or
    not answered. `None`: they never stopped."""
    names = {name for name, intervals in bad.items() if intervals}
    touched = [line.start - begin for line in lines
               if begin <= line.start < end and (line.retries or line.instance in names or line.status in (502, 503, 504))]
    last = max(touched, default=0.0)
    return None if last > end - begin - 0.5 else last


def row(title, balancer, is_left, world, load, lines):
    intervals = [interval for part in world.bad.values() for interval in part]
    begin, end = min(start for start, _ in intervals), max(stop for _, stop in intervals)
    concerned = [it for it in load.answers if it.done >= begin]
    waits = sorted((it.done - max(it.due, begin)) * 1000 for it in concerned if it.due < end)
    moved, needless = moves(load.answers, world.bad)
    did = [number for host in world.hosts for number in host.did]
    touch = last_touch(lines, world.bad, begin, end) if is_left else None
    kinds, failed = {}, [it for it in concerned if it.error]
    for it in failed:
        kinds[f"{it.method} {it.error}"] = kinds.get(f"{it.method} {it.error}", 0) + 1
    return {
        "fault": title, "balancer": balancer.name, "requests": len(concerned),
        "GET errors": sum(it.method == "GET" for it in failed),
        "POST errors": sum(it.method == "POST" for it in failed),
        "retried": sum(line.retries > 0 for line in lines if line.start >= begin - 5),
        "moved": moved, "needlessly": needless,
        "last touch s": "-" if not is_left else "never" if touch is None else round(touch, 2),
        "last error s": round(max(it.done for it in failed) - begin, 2) if failed else "-",
        "p99 ms": round(waits[len(waits) * 99 // 100]), "longest ms": round(waits[-1]),
        "kinds": kinds, "POST acted upon twice": len(did) - len(set(did)),
        "counts that broke": broken_counts(load.answers),
    }


async def measure(hosts, folder, case, balancer, options):
    _, title, fault, _, is_left = case
    try:
        for host in hosts:
            host.did.clear()
            await host.start()
        balancer.start(folder, hosts)
        await asyncio.sleep(PROBES)
        load = Load(balancer.port, options.sessions, options.rate)
        await load.begin()
        await asyncio.sleep(WARM)
        world = cases.World(hosts, options.hold)
        await fault(world)
        await asyncio.sleep(AFTER)
        await load.end()
    finally:
        lines = balancer.end()
        for host in hosts:
            await host.end()
    return row(title, balancer, is_left, world, load, lines)


def show(cells, file=sys.stdout):
    widths = [24, 28, 9, 11, 12, 8, 6, 11, 13, 13, 7, 11]
    print("".join(f"{str(cell):{'<' if at < 2 else '>'}{width}}" for at, (cell, width) in enumerate(zip(cells, widths))),
          file=file, flush=True)


def machine():
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown")
    return f"{os.cpu_count()} x {model}, Linux {os.uname().release}, load {os.getloadavg()[0]:.1f}"


async def run(options, hosts, folder):
    for number in ENDS:
        asyncio.get_running_loop().add_signal_handler(number, asyncio.current_task().cancel)
    wanted = [case for case in cases.CASES if not options.only or case[0] in options.only.split(",")]
    print(f"# {time.strftime('%Y-%m-%d')}; {machine()}; {'; '.join(balancers.versions())}; {len(hosts)} instances, "
          f"{options.sessions} sessions, {options.rate} requests/s, bad for {options.hold:g} s")
    show(COLUMNS)
    rows = []
    for case in wanted:
        place = folder / case[0]
        place.mkdir(parents=True, exist_ok=True)
        for balancer in case[3]:
            result = await measure(hosts, place, case, balancer, options)
            rows.append(result)
            show(result[column] for column in COLUMNS)
            for what in ["POST acted upon twice", "counts that broke"]:
                if result[what]:
                    print(f"    {what}: {result[what]}")
            if result["kinds"] and options.verbose:
                print(f"    {result['kinds']}", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": machine(), "versions": balancers.versions(), "rows": rows}, indent=1))


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", help="faults, by comma: " + ", ".join(case[0] for case in cases.CASES))
    options.add_argument("--sessions", type=int, default=120)
    options.add_argument("--rate", type=int, default=360, help="requests a second")
    options.add_argument("--hold", type=float, default=5, help="seconds that an instance stays bad")
    options.add_argument("--instances", type=int, default=6)
    options.add_argument("--json", help="a file for all that was counted")
    options.add_argument("--keep", help="a folder for the configurations and logs of the balancers")
    options.add_argument("--verbose", action="store_true", help="also which errors")
    options = options.parse_args()
    if not 2 <= options.instances <= 60:
        sys.exit("--instances: 2 to 60")
    if os.geteuid() != 0:
        sys.exit("network namespaces need root")
    for number in ENDS:
        signal.signal(number, lambda *_: sys.exit(1))
    sweep()
    hosts = [Host(number) for number in range(options.instances)]
    try:
        for host in hosts:
            host.build()
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(run(options, hosts, Path(options.keep or folder)))
    except asyncio.CancelledError:
        sys.exit(1)
    finally:
        for host in hosts:
            host.remove()


if __name__ == "__main__":
    main()
