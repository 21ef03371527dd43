"""How a warm login with ten thousand accounts compares with one with ten, in turns."""

from __future__ import annotations

from tests.bench.candidate import EMAILPROXY, Candidate
from tests.bench.effort import Effort
from tests.bench.population import population
from tests.bench.site import Bench

NAME = "10,000 accounts in the state folder: warm login, against 10 accounts"
UNIT = "ratio"
TARGET = "at most 1.05 (noise)"
CANDIDATES = (EMAILPROXY,)
ROUNDS = 3


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    return (await population(bench, candidate, effort)).login_part
