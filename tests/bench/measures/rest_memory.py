"""What the proxy's processes have in memory after the start, before anybody has logged in."""

from __future__ import annotations

from tests.bench.candidate import DOVECOT, PROXIES, STUNNEL, Candidate
from tests.bench.candidates import fresh
from tests.bench.effort import Effort
from tests.bench.launch import at_rest, resident_mib
from tests.bench.site import Bench

NAME = "memory at rest"
UNIT = "MiB"
TARGET = "at most 40 MiB"
CANDIDATES = PROXIES


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    if candidate.name in (STUNNEL, DOVECOT):  # those have nobody to sign in
        async with fresh(bench, candidate) as running:
            return None if running is None or running.tree is None else resident_mib(running.tree)
    async with at_rest(bench, candidate) as started:
        return resident_mib(started.tree)
