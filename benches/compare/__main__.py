#!/usr/bin/env python3
"""Burdock beside HAProxy, nginx, Envoy, Caddy, Traefik, Sozu, pingora-proxy and a bare forwarder of bytes.

    python3 benches/compare                       everything, some 25 minutes; what is missing is installed
    python3 benches/compare --only a,b            these scenarios; the others of today's results stay
    python3 benches/compare --report              tables, plots and READMEs from the newest results
    python3 benches/compare --check               fails if they are not what the newest results say

One worker each. Rounds are interleaved over all peers, medians are shown, and ratios are to the
best peer, which is never Burdock nor the forwarder. All samples are kept in `benches/results`.
Needs wrk and h2load, and openssl for a certificate; HAProxy and nginx by apt. Fails at its end if a
sample is missing. Scenarios:
"""

import argparse, datetime, json, os, platform, re, signal, subprocess, sys, tempfile, time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import report
from configuration import Wanted
from load import Failed, Instances, wrk
from meter import Meter
from peers import PEERS, Peer, Running, chosen, install
from processes import ROOT, raise_descriptor_limit
from scenarios import SCENARIOS

# How much of the machine others may take before a sample is taken again, whatever it says.
NOISE, AGAIN = 0.5, 2


class Direct:
    """No proxy: a client asks instances themselves."""

    name = "direct"

    def __init__(self, instances):
        self.port, self.pid = instances.ports[0], instances.pid


class Bench:
    """A run: what samples may ask for."""

    def __init__(self, folder, instances, options, peers):
        self.folder, self.instances, self.peers = folder, instances, peers
        self.rounds, self.seconds = options.rounds, options.seconds
        self.quiet, self.calls, self.round, self.can = options.noise, options.calls, 0, {}
        self.lacks = False

    def meter(self, running, *clients):
        """`clients` are those that outlive what is measured, as they are no noise."""
        ours = {self.instances.pid, *(client.process.pid for client in clients)}
        return Meter(running.pid, ours - {running.pid})

    def counts_calls(self, running):
        return self.calls and self.round == 0

    def start(self, peer, point):
        return Running(peer, self.folder, Wanted(point.features, self.instances.some(point.instances)))

    def saturation(self, running):
        if running.name not in self.can:
            self.can[running.name] = wrk(running, "/50", 64, self.seconds)["rate"]
        return self.can[running.name]

    def slowest(self):
        return min(self.can.values())

    def measure(self, point, running):
        """A sample, or none where a client failed, which is told."""
        for _ in range(1 + AGAIN):
            try:
                sample = point.sample(self, running)
            except Failed as failure:
                print(f"no sample of {running.name}, {point.label}: {failure}", flush=True)
                self.lacks = True
                return []
            if sample.get("noise", 0) < self.quiet or point.fresh:
                break
        if "cpu_us" in sample:
            sample["per_core"] = 1e6 / sample["cpu_us"]
        return [{key: round(value, 4) if isinstance(value, float) else value for key, value in sample.items()}]

    def run(self, point):
        able = [peer for peer in self.peers if point.needs <= peer.can]
        samples = {peer.name: [] for peer in able}
        rounds = min(self.rounds, point.rounds)
        if point.fresh:
            for self.round in range(rounds):
                for peer in able:
                    running = self.start(peer, point)
                    try:
                        samples[peer.name] += self.measure(point, running)
                    finally:
                        running.end()
            return samples
        started = []
        try:
            for peer in able:
                started.append(self.start(peer, point))
            if point.direct:
                for running in started:
                    self.saturation(running)
                started.append(Direct(self.instances))
                samples["direct"] = []
            for self.round in range(rounds):
                for running in started:
                    samples[running.name] += self.measure(point, running)
        finally:
            for running in started:
                if running.name != "direct":
                    running.end()
        return samples


def certificate(folder):
    """One for all who speak TLS."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-days", "2", "-subj", "/CN=bench",
                    "-addext", "subjectAltName=DNS:bench,DNS:localhost,IP:127.0.0.1"], check=True, stderr=subprocess.DEVNULL)
    (folder / "both.pem").write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())


def machine():
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True, stdout=subprocess.PIPE)
    return {"cpu": model.group(1).strip() if model else platform.machine(), "cores": os.cpu_count(),
            "kernel": platform.release(), "commit": commit.stdout.strip(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)}


def results_file(machine):
    slug = re.sub(r"[^a-z0-9]+", "-", machine["cpu"].lower()).strip("-")
    return report.RESULTS / f"{datetime.date.today()}-{slug}-{machine['cores']}-cores.json"


def arguments():
    letters = "\n".join(f"  {each.letter}  {each.title}" for each in SCENARIOS.values())
    options = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter,
                                      description=__doc__ + letters + "\n  m  the forwarder, which is a row of every table: as a")
    options.add_argument("--only", default=",".join(SCENARIOS), help="letters of scenarios, with commas between")
    options.add_argument("--peers", default=",".join(PEERS), help="names, with commas between")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=int, default=2, help="of each sample")
    options.add_argument("--noise", type=float, default=NOISE,
                         help="share of the machine that others may take before a sample is taken again")
    options.add_argument("--calls", action=argparse.BooleanOptionalAction, default=True,
                         help="count system calls too, in a round of their own")
    options.add_argument("--keep", help="a folder for configurations and logs")
    options.add_argument("--out", type=Path, help="the file of results")
    options.add_argument("--report", action="store_true", help="only write what is made from results")
    options.add_argument("--check", action="store_true", help="only compare what is made from results with what is there")
    options = options.parse_args()
    options.only = ["a" if letter == "m" else letter for letter in options.only.split(",")]
    options.peers = options.peers.split(",")
    unknown = [each for each in options.only if each not in SCENARIOS] + [each for each in options.peers if each not in PEERS]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join([*SCENARIOS, *PEERS])}")
    return options


def main():
    options = arguments()
    if options.check or options.report:
        return sys.exit(report.publish(check=options.check))
    # Processes are ended however this program is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    raise_descriptor_limit()
    install(options.peers)
    peers = chosen(options.peers)
    here = machine()
    file = options.out or results_file(here)
    results = json.loads(file.read_text()) if file.exists() else {"scenarios": {}}
    results |= {"date": str(datetime.date.today()), "machine": here,
                "versions": results.get("versions", {}) | {peer.name: peer.version() for peer in peers}}
    print(report.heading(results))
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(options.keep or folder)
        folder.mkdir(exist_ok=True)
        certificate(folder)
        instances = Instances()
        try:
            bench = Bench(folder, instances, options, peers)
            for letter in options.only:
                scenario = SCENARIOS[letter]
                points = {point.label: bench.run(point) for point in scenario.points}
                results["scenarios"][letter] = {"rounds": options.rounds, "seconds": options.seconds, "points": points}
                file.parent.mkdir(exist_ok=True)
                file.write_text(report.dumped(results))
                print(report.table(scenario, points), flush=True)
                print(f"  after {time.monotonic() - begin:.0f} s", flush=True)
        finally:
            instances.end()
    if not options.out:
        report.publish()
    sys.exit(1 if bench.lacks else 0)


if __name__ == "__main__":
    main()
