"""Hosts of instances: network namespaces with an address each, and processes within.

A black hole is made with what every kernel has: the link of a host gets another hardware address,
of which nobody is told. Packets both ways then reach nobody, and no error comes back.
"""

import asyncio, ctypes, os, re, signal, subprocess, sys
from pathlib import Path

PREFIX = "burdock-faults"
PORT = 8000
PARENT_DEATH = 1  # PR_SET_PDEATHSIG of linux/prctl.h
NOWHERE = "02:00:00:00:00:01"
LIBC = ctypes.CDLL(None)


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, text=True, capture_output=not check).stdout


def with_parent():
    """In a child: it dies with the program that started it, however that ends."""
    LIBC.prctl(PARENT_DEATH, signal.SIGKILL)


def sweep():
    """Removes what runs that were killed outright have left."""
    for line in (ip("netns", "list", check=False) or "").splitlines():
        name = line.split()[0]
        owner = re.fullmatch(rf"{PREFIX}-(\d+)-\d+", name)
        if owner and (int(owner[1]) == os.getpid() or not Path(f"/proc/{owner[1]}").exists()):
            ip("netns", "del", name, check=False)


class Host:
    """A namespace that is joined to this one by a link of two addresses."""

    def __init__(self, number):
        pid = os.getpid()
        self.name, self.space, self.link = f"i{number}", f"{PREFIX}-{pid}-{number}", f"bf{pid}x{number}"
        # 198.18.0.0/15 is for benchmarks of networks (RFC 2544).
        net = f"198.{18 + (pid >> 8 & 1)}.{pid & 255}"
        self.outer, self.address = f"{net}.{4 * number + 1}", f"{net}.{4 * number + 2}"
        self.process, self.reader, self.did = None, None, []

    def build(self):
        ip("netns", "add", self.space)
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.space)
        ip("address", "add", f"{self.outer}/30", "dev", self.link)
        ip("link", "set", self.link, "up")
        self.inside("address", "add", f"{self.address}/30", "dev", "eth0")
        self.inside("link", "set", "lo", "up")
        self.inside("link", "set", "eth0", "up")
        self.outer_mac = Path(f"/sys/class/net/{self.link}/address").read_text().strip()
        self.mac = re.search(r"link/ether (\S+)", self.inside("link", "show", "eth0")).group(1)
        self.know(self.outer_mac)
        # A permanent entry: without it the kernel would find out that nobody is there, and say so.
        ip("neighbour", "replace", self.address, "lladdr", self.mac, "dev", self.link, "nud", "permanent")

    def inside(self, *arguments):
        return subprocess.run(["ip", "-n", self.space, *arguments], check=True, text=True, stdout=subprocess.PIPE).stdout

    def know(self, mac):
        self.inside("neighbour", "replace", self.outer, "lladdr", mac, "dev", "eth0", "nud", "permanent")

    def vanish(self):
        self.inside("link", "set", "eth0", "address", NOWHERE)
        self.know(NOWHERE)

    def reappear(self):
        self.inside("link", "set", "eth0", "address", self.mac)
        self.know(self.outer_mac)

    async def start(self):
        program = Path(__file__).parent / "instance.py"
        self.process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self.space, sys.executable, str(program), self.name, self.address, str(PORT),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=with_parent)
        line = await asyncio.wait_for(self.process.stdout.readline(), 20)
        if line != b"listening\n":
            sys.exit(f"{self.name} did not start")
        self.reader = asyncio.ensure_future(self.read(self.process.stdout))

    async def read(self, stdout):
        while line := await stdout.readline():
            self.did.append(int(line.split()[1]))

    def tell(self, line):
        self.process.stdin.write(f"{line}\n".encode())

    def send(self, number):
        if self.process and self.process.returncode is None:
            # Not by the process object: that would collect what its watcher waits for.
            try:
                os.kill(self.process.pid, number)
            except ProcessLookupError:
                pass

    async def end(self, number=signal.SIGKILL):
        self.send(number)
        if self.process:
            await self.process.wait()
            await self.reader

    def remove(self):
        self.send(signal.SIGKILL)
        ip("netns", "del", self.space, check=False)
