"""The balancers, with configurations that ask for the same, and what their own logs tell.

Both: two threads, sticky by a cookie of the balancer's, a probe of both checks every second with a
limit of a second, two failures take an instance out and two successes bring it back, five failed
requests in a row do as well, 2 s to connect, 5 s to the first byte of an answer.
"""

import json, os, subprocess, sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from processes import BURDOCK, free_port, wait_for

from hosts import PORT, with_parent

# Everything else is as it is by default: a request is tried on up to three instances, a failed
# connect on as many as there are, and the breaker opens after five failures in a row.
BURDOCK_YAML = """
workers: 2
listeners: ["127.0.0.1:{port}"]
admin: off
access_log: true
session_affinity: true
readiness_check: {{ path: /readyz, check_interval: 1s, timeout: 1s, failure_threshold: 2, success_threshold: 2 }}
liveness_check: {{ path: /healthz, check_interval: 1s, timeout: 1s, failure_threshold: 2, success_threshold: 2, initial_delay: 0s }}
timeouts: {{ connect: 2s, first_byte: {first_byte} }}
{options}
instances:
{instances}
"""

# As HAProxy's configuration manual advises for cookies and dead servers: `option redispatch 1` lets
# a request with a cookie leave its server at the first retry instead of the last, `retry-on` adds
# what is safe for a GET, `disable-l7-retry` keeps it from a POST, and with `observe layer7` live
# traffic takes a server out before its checks do. HAProxy has one check per server; it asks both.
HAPROXY = """
global
  nbthread 2
  maxconn 9000
  log stdout format raw daemon
defaults
  mode http
  log global
  log-format '{{"start":"%tr","ms":"%Ta","instance":"%s","status":%ST,"retries":"%rc"}}'
  timeout connect 2s
  timeout client 60s
  timeout server {first_byte}
  timeout check 1s
  retries 3
  option redispatch 1
  retry-on {retry_on}
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  balance roundrobin
  cookie SRV insert indirect nocache
  http-request disable-l7-retry if METH_POST
  option httpchk
  http-check connect
  http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host x
  http-check expect status 200
  http-check connect
  http-check send meth GET uri /healthz ver HTTP/1.1 hdr Host x
  http-check expect status 200
  default-server check inter 1s fall 2 rise 2 observe layer7 error-limit 5 on-error mark-down
{instances}
"""
RETRY_ON = "conn-failure empty-response response-timeout"


@dataclass
class Line:
    """What a balancer logged of one request."""

    start: float
    instance: str
    status: int
    retries: int


class Balancer:
    """One under test, with its options."""

    def __init__(self, name, **options):
        self.name, self.options = name, options

    def start(self, folder, hosts):
        self.port, self.log = free_port(), folder / f"{self.name}.log"
        config = folder / f"{self.name}.conf"
        config.write_text(self.config(hosts))
        environment = dict(os.environ, TZ="UTC")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command(config), stdout=log, stderr=subprocess.STDOUT, env=environment,
                                            preexec_fn=with_parent)
        wait_for(self.port)

    def end(self):
        """Gives the lines of its log."""
        self.process.terminate()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        lines = []
        for line in self.log.read_text().splitlines():
            if line.startswith("{"):
                lines += self.read(json.loads(line))
        return lines


class Burdock(Balancer):
    def config(self, hosts):
        instances = "\n".join(f"  - {{ name: {host.name}, address: {host.address}:{PORT} }}" for host in hosts)
        values = {"first_byte": "5s", "options": ""} | self.options
        return BURDOCK_YAML.format(port=self.port, instances=instances, **values)

    def command(self, config):
        return [str(BURDOCK), "run", "-c", str(config), "--log-format", "json"]

    def read(self, line):
        if line.get("target") == "access":
            end = datetime.fromisoformat(line["timestamp"].replace("Z", "+00:00")).timestamp()
            start = end - line["duration_ms"] / 1000
            yield Line(start, line["instance"], line["status"], max(line["attempts"] - 1, 0))


class HAProxy(Balancer):
    def config(self, hosts):
        instances = "\n".join(f"  server {host.name} {host.address}:{PORT} cookie {host.name}" for host in hosts)
        values = {"first_byte": "5s", "retry_on": RETRY_ON} | self.options
        return HAPROXY.format(port=self.port, instances=instances, **values)

    def command(self, config):
        return ["haproxy", "-db", "-f", str(config)]

    def read(self, line):
        start = datetime.strptime(line["start"], "%d/%b/%Y:%H:%M:%S.%f").replace(tzinfo=timezone.utc).timestamp()
        yield Line(start, line["instance"], line["status"], int(line["retries"].lstrip("+")))


BURDOCK_PLAIN, HAPROXY_PLAIN = Burdock("burdock"), HAProxy("haproxy")
BURDOCK_SHARE = Burdock("burdock + error_share", options="breaker: { error_share: 20%, min_requests: 10 }")
HAPROXY_SHARE = HAProxy("haproxy + retry-on 500", retry_on=f"{RETRY_ON} 500")
BURDOCK_SHORT = Burdock("burdock + first_byte 100ms", first_byte="100ms")
HAPROXY_SHORT = HAProxy("haproxy + server 100ms", first_byte="100ms")
PLAIN = [BURDOCK_PLAIN, HAPROXY_PLAIN]


def version(command):
    return subprocess.run(command, text=True, stdout=subprocess.PIPE).stdout.splitlines()[0]


def versions():
    return [version([str(BURDOCK), "--version"]), version(["haproxy", "-v"]).split(" - ")[0]]
