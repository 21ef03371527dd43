"""How many round trips an IMAP login takes where each is long; the mail server speaks TLS from the first octet."""

from __future__ import annotations

from tests.bench.candidate import EMAILPROXY, PREWARMED, PYPI, Candidate
from tests.bench.distance import trips
from tests.bench.effort import Effort
from tests.bench.site import Bench

NAME = "IMAP login over a line with 100 ms of round trip"
UNIT = "round trips"
TARGET = "at most 4; 1 with prewarm"
CANDIDATES = (EMAILPROXY, PREWARMED, PYPI)
ROUNDS = 3


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    return (await trips(bench, candidate, effort)).imap
