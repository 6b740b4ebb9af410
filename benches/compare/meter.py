"""What a proxy costs while something happens: processor time of all its processes, user and system
apart, their memory, their system calls, and how much else the machine did meanwhile."""

import os, re, signal, subprocess, time
from dataclasses import dataclass
from pathlib import Path

from processes import cpu, resident, tree

TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """Seconds."""

    cpu: float
    user: float
    wall: float
    noise: float

    def per(self, count):
        """Microseconds for each of what was counted. The scheduler counts all of it exactly, and in
        ticks how it divides into user and system."""
        whole = self.cpu / max(count, 1) * 1e6
        return {"cpu_us": whole, "user_us": whole * self.user, "system_us": whole * (1 - self.user),
                "noise": self.noise}


def ticks(pid):
    """In user mode, in the kernel."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    return int(fields[11]), int(fields[12])


def machine():
    """Seconds that all processors were not idle, those that a hypervisor took included."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _, _, irq, soft, steal = fields
    return (user + nice + system + irq + soft + steal) / TICK


class Meter:
    """Of a process tree; `others` are processes of ours that are no noise either."""

    def __init__(self, pid, others=()):
        self.pid, self.others = pid, others

    def look(self):
        pids = tree(self.pid)
        user, system = (sum(column) for column in zip(*map(ticks, pids)))
        # A client that has ended is among the children.
        gone = os.times()
        ours = sum(map(cpu, [*pids, *(pid for each in self.others for pid in tree(each))])) / 1e9
        return {"cpu": sum(map(cpu, pids)) / 1e9, "user": user, "system": system, "wall": time.monotonic(),
                "machine": machine(), "ours": ours + gone.children_user + gone.children_system}

    def during(self, work):
        """What `work` gives, and the cost meanwhile."""
        before = self.look()
        result = work()
        return result, self.since(before)

    def since(self, before):
        after = self.look()
        grown = {key: after[key] - before[key] for key in before}
        ticked = grown["user"] + grown["system"]
        others = max(grown["machine"] - grown["ours"], 0) / grown["wall"] / os.cpu_count()
        return Cost(grown["cpu"], grown["user"] / ticked if ticked else 0, grown["wall"], others)

    def memory(self):
        return sum(map(resident, tree(self.pid)))

    def system_calls(self, work):
        """What `work` gives, and how many calls were made meanwhile; none where that is forbidden."""
        pids = ",".join(map(str, tree(self.pid)))
        command = ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", pids]
        try:
            perf = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        except FileNotFoundError:
            return work(), None
        time.sleep(0.2)
        result = work()
        perf.send_signal(signal.SIGINT)
        counted = re.search(r"^(\d+),", perf.communicate()[1], re.MULTILINE)
        return result, int(counted.group(1)) if counted else None
