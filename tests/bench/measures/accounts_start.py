"""How long a start takes where ten thousand accounts are signed in."""

from __future__ import annotations

from tests.bench.candidate import EMAILPROXY, Candidate
from tests.bench.effort import Effort
from tests.bench.population import population
from tests.bench.site import Bench

NAME = "10,000 accounts in the state folder: start"
UNIT = "s"
TARGET = "under 1 s"
CANDIDATES = (EMAILPROXY,)
ROUNDS = 3


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    return (await population(bench, candidate, effort)).start_s
