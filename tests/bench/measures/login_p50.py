"""How long a warm IMAP login takes: connect, greeting, LOGIN, the tagged OK."""

from __future__ import annotations

from tests.bench.candidate import EVERYONE, PREWARMED, Candidate
from tests.bench.effort import Effort
from tests.bench.logins import in_a_row
from tests.bench.site import Bench

NAME = "warm IMAP login, p50"
UNIT = "ms"
TARGET = "at most 0.8 of Dovecot's"
CANDIDATES = (*EVERYONE, PREWARMED)


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    return (await in_a_row(bench, candidate, effort)).p50_s * 1000
