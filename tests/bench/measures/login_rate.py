"""How many IMAP logins a second eight clients get through."""

from __future__ import annotations

from tests.bench.candidate import EVERYONE, PREWARMED, Candidate
from tests.bench.effort import Effort
from tests.bench.logins import at_once
from tests.bench.site import Bench

NAME = "logins per second, 8 clients"
UNIT = "logins/s"
TARGET = "at least Dovecot's, with one process"
BETTER = "higher"
CANDIDATES = (*EVERYONE, PREWARMED)
CLIENTS = 8


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    return await at_once(candidate, CLIENTS, effort.seconds)
