"""How long it takes to make one account's token durable among ten thousand.

No proxy: as many octets written with nothing around them, in turns, for what the disk takes of it.
"""

from __future__ import annotations

from tests.bench.candidate import DIRECT, EMAILPROXY, Candidate
from tests.bench.effort import Effort
from tests.bench.population import population
from tests.bench.site import Bench

NAME = "10,000 accounts in the state folder: saving one token, p99"
UNIT = "ms"
TARGET = "under 5 ms"
CANDIDATES = (DIRECT, EMAILPROXY)
ROUNDS = 3


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    found = await population(bench, candidate, effort)
    return 1000 * (found.by_hand_p99_s if candidate.name == DIRECT else found.save_p99_s)
