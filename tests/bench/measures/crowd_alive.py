"""How many of 10,000 idle clients one process still answers, or of as many as its descriptors allow."""

from __future__ import annotations

from tests.bench.candidate import DOVECOT, EMAILPROXY, STUNNEL, Candidate
from tests.bench.crowd import crowd
from tests.bench.effort import Effort
from tests.bench.site import Bench

NAME = "10,000 idle connections in one process: alive"
UNIT = "%"
TARGET = "100 %"
BETTER = "higher"
CANDIDATES = (DOVECOT, EMAILPROXY, STUNNEL)
ROUNDS = 1


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    found = await crowd(bench, candidate, effort)
    return None if found is None else found.alive_percent
