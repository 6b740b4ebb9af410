"""The faults. Each breaks, waits and mends; `World` notes which instance was bad from when to when.

How long the bad state lasts is `world.hold`; what is fixed otherwise stands in the case.
"""

import asyncio, signal, time

import balancers


class World:
    """The instances and what was done to them."""

    def __init__(self, hosts, hold):
        self.hosts, self.hold = hosts, hold
        self.bad, self.since = {host.name: [] for host in hosts}, {}

    def breaks(self, *hosts):
        for host in hosts:
            self.since[host.name] = time.time()

    def mends(self, *hosts):
        for host in hosts:
            self.bad[host.name].append((self.since.pop(host.name), time.time()))

    def tell(self, broken, mended):
        """A case in which the victim is told two lines."""
        return self.around(lambda host: host.tell(broken), lambda host: host.tell(mended))

    async def around(self, breaks, mends, seconds=0):
        victim = self.hosts[0]
        self.breaks(victim)
        breaks(victim)
        await asyncio.sleep(max(seconds, self.hold))
        mends(victim)
        self.mends(victim)

    async def gone(self, hosts, seconds):
        self.breaks(*hosts)
        # All of them before any is waited for.
        for host in hosts:
            host.send(signal.SIGKILL)
        for host in hosts:
            await host.end()
        await asyncio.sleep(seconds)
        await asyncio.gather(*(host.start() for host in hosts))
        self.mends(*hosts)

    async def restart(self, host):
        """As a supervisor does: SIGTERM, the process finishes what it has, and is started again. Half a
        second is what an app needs at least until it listens."""
        self.breaks(host)
        await host.end(signal.SIGTERM)
        await asyncio.sleep(0.5)
        await host.start()
        self.mends(host)


async def killed(world):
    await world.gone(world.hosts[:1], world.hold)


async def stopped(world):
    await world.around(lambda host: host.send(signal.SIGSTOP), lambda host: host.send(signal.SIGCONT), SILENT)


async def refused(world):
    await world.tell("refuse", "listen")


async def black_hole(world):
    await world.around(lambda host: host.vanish(), lambda host: host.reappear(), SILENT)


async def slow(world):
    await world.tell("slow 10", "slow 1")


async def errors(world):
    await world.tell("errors 0.3", "errors 0")


async def half(world):
    await world.gone(world.hosts[: len(world.hosts) // 2], world.hold)


async def all_gone(world):
    await world.gone(world.hosts, world.hold / 2)


async def flapping(world):
    """Two seconds away, two seconds there."""
    for _ in range(max(2, round(world.hold / 4))):
        victim = world.hosts[0]
        world.breaks(victim)
        victim.tell("refuse")
        await asyncio.sleep(2)
        victim.tell("listen")
        world.mends(victim)
        await asyncio.sleep(2)


async def unready(world):
    await world.tell("ready no", "ready yes")


async def not_alive(world):
    await world.tell("alive no", "alive yes")


async def restarted(world):
    await world.restart(world.hosts[0])
    await asyncio.sleep(world.hold / 2)


async def rolling(world):
    """Each is started before the next is stopped; nobody waits for checks in between."""
    for host in world.hosts:
        await world.restart(host)
        await asyncio.sleep(1)


# So long that what came to a silent instance at the last has had the 5 s that an answer may take.
SILENT = 10
PLAIN = balancers.PLAIN
# Name, what is done, before whom, whether the bad instance is to be left.
CASES = [
    ("kill", "kill -9", killed, PLAIN, True),
    ("hang", "SIGSTOP", stopped, PLAIN, True),
    ("refused", "port closed", refused, PLAIN, True),
    ("black-hole", "packets dropped", black_hole, PLAIN, True),
    ("slow", "10 x latency", slow, [*PLAIN, balancers.BURDOCK_SHORT, balancers.HAPROXY_SHORT], True),
    ("5xx", "30 % answers of 500", errors, [*PLAIN, balancers.BURDOCK_SHARE, balancers.HAPROXY_SHARE], True),
    ("half", "kill -9 of half of them", half, PLAIN, True),
    ("all", "kill -9 of all, back", all_gone, PLAIN, False),
    ("flapping", "port closed, every 2 s", flapping, PLAIN, False),
    ("unready", "readiness 503", unready, PLAIN, True),
    ("not-alive", "liveness 503", not_alive, PLAIN, True),
    ("restart", "restart in place", restarted, PLAIN, False),
    ("rolling", "restart of each in turn", rolling, PLAIN, False),
]
