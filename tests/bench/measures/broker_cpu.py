"""What the token broker spends on a warm login: the first one derives a key and reads a file, the others must not."""

from __future__ import annotations

from tests.bench.candidate import EMAILPROXY, Candidate
from tests.bench.effort import Effort
from tests.bench.site import Bench
from tests.bench.warm_logins import cpu_s

NAME = "CPU of the broker alone per warm login"
UNIT = "ms"
TARGET = "at most 1 ms"
CANDIDATES = (EMAILPROXY,)


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    return await cpu_s(effort.broker_logins) / effort.broker_logins * 1000
