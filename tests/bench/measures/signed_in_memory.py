"""What the proxy's process has in memory after an authorization code sign-in, whose redirect it has taken."""

from __future__ import annotations

from tests.bench.candidate import EMAILPROXY, PYPI, Candidate
from tests.bench.candidates import fresh
from tests.bench.effort import Effort
from tests.bench.launch import resident_mib
from tests.bench.site import Bench

NAME = "memory with the redirect listener in use"
UNIT = "MiB"
TARGET = "at most 60 MiB"
CANDIDATES = (EMAILPROXY, PYPI)


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    async with fresh(bench, candidate) as running:
        return None if running is None or running.tree is None else resident_mib(running.tree)
