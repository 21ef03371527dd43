"""How long a start takes, from the command to the first greeting that a client gets."""

from __future__ import annotations

from tests.bench.candidate import EMAILPROXY, PYPI, Candidate
from tests.bench.effort import Effort
from tests.bench.launch import at_rest
from tests.bench.site import Bench

NAME = "start to listening"
UNIT = "s"
TARGET = "at most 0.25 s"
CANDIDATES = (EMAILPROXY, PYPI)


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    async with at_rest(bench, candidate) as started:
        return started.took_s
