"""What the proxy's processes spend on one warm IMAP login and its logout."""

from __future__ import annotations

from tests.bench.candidate import PREWARMED, PROXIES, Candidate
from tests.bench.effort import Effort
from tests.bench.logins import in_a_row
from tests.bench.site import Bench

NAME = "proxy CPU per login"
UNIT = "ms"
TARGET = "at most 1.5 ms"
CANDIDATES = (*PROXIES, PREWARMED)


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    row = await in_a_row(bench, candidate, effort)
    return None if row.cpu_s is None else row.cpu_s / len(row.took_s) * 1000
