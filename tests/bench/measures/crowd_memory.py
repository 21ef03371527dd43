"""What one process with 10,000 idle clients has in memory."""

from __future__ import annotations

from tests.bench.candidate import DOVECOT, EMAILPROXY, STUNNEL, Candidate
from tests.bench.crowd import crowd
from tests.bench.effort import Effort
from tests.bench.site import Bench

NAME = "10,000 idle connections in one process: memory in all"
UNIT = "MiB"
TARGET = "under 420 MiB"
CANDIDATES = (DOVECOT, EMAILPROXY, STUNNEL)
ROUNDS = 1


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    found = await crowd(bench, candidate, effort)
    return None if found is None else found.mib
