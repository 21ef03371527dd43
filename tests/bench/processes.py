"""What a process and its descendants use, as the kernel tells it: proc(5)."""

from __future__ import annotations

import functools
import os
import re
import resource
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")
SPARE_DESCRIPTORS = 600  # of a candidate's own: stunnel keeps 3 of 256 to itself, which is the most


@dataclass(frozen=True, slots=True)
class Stat:
    """What /proc/PID/stat says, as far as it is needed here."""

    parent: int
    own_s: float
    """User and system time of all its threads, those that ended included."""
    ended_children_s: float
    """The same of the children that it waited for, and of theirs."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A process and its descendants, looked up anew at every question. Who ends meanwhile counts nothing."""

    pid: int

    def pids(self) -> list[int]:
        """Those alive; the first is the process itself, unless it has ended."""
        return list(self._stats())

    def cpu_s(self) -> float:
        """User and system time so far, to the clock's tick: of the living, and of whom they waited for."""
        return sum(stat.own_s + stat.ended_children_s for stat in self._stats().values())

    def pss_kib(self) -> int:
        """Resident memory, where what several processes share counts for each with its part."""
        return sum(_numbers(self.pids(), "smaps_rollup", r"^Pss:\s+(\d+) kB"))

    def rss_kib(self) -> int:
        """Resident memory, where what several processes share counts for each in full."""
        return sum(_numbers(self.pids(), "status", r"^VmRSS:\s+(\d+) kB"))

    def descriptors(self) -> int:
        """Open files, sockets and pipes."""
        count = 0
        for pid in self.pids():
            try:
                count += len(os.listdir(PROC / str(pid) / "fd"))
            except OSError:
                continue
        return count

    def _stats(self) -> dict[int, Stat]:
        """By process, a parent before its children."""
        everyone = dict(_all_stats())
        children = defaultdict(list)
        for pid, stat in everyone.items():
            children[stat.parent].append(pid)
        found: dict[int, Stat] = {}
        waiting = [self.pid]
        for pid in waiting:
            if pid in everyone:
                found[pid] = everyone[pid]
                waiting += children[pid]
        return found


def allow_descriptors(count: int) -> None:
    """Raises this process's limit of open files, and its later children's.

    Raises:
        OSError, ValueError: so many are not allowed here.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        bounded = hard != resource.RLIM_INFINITY and hard < count
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, count if bounded else hard))


@functools.cache
def affordable(connections: int) -> int:
    """How many of so many there can be, each through a proxy that has two descriptors for it; says so where not all.
    This process's limit is raised to what is allowed."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return connections
    allow_descriptors(hard)
    found = min(connections, (hard - SPARE_DESCRIPTORS) // 2)
    if found < connections:
        print(f"{found:,} connections, not {connections:,}: a process may have {hard:,} files open here", flush=True)
    return found


def _all_stats() -> Iterator[tuple[int, Stat]]:
    for name in os.listdir(PROC):
        if name.isdigit():
            try:
                text = (PROC / name / "stat").read_text(errors="replace")
            except OSError:
                continue  # it has ended meanwhile
            fields = text.rpartition(")")[2].split()  # what is before may hold anything: the program's name
            user, system, children_user, children_system = (int(ticks) / TICKS_A_SECOND for ticks in fields[11:15])
            yield int(name), Stat(int(fields[1]), user + system, children_user + children_system)


def _numbers(pids: list[int], file: str, pattern: str) -> Iterator[int]:
    for pid in pids:
        try:
            found = re.search(pattern, (PROC / str(pid) / file).read_text(), re.MULTILINE)
        except OSError:
            continue  # it has ended meanwhile
        if found:  # a process that has ended and was not waited for has no memory
            yield int(found[1])
