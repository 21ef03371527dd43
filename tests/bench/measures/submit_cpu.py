"""What the proxy's processes spend on SMTP DATA."""

from __future__ import annotations

from tests.bench.candidate import PROXIES, Candidate
from tests.bench.effort import Effort
from tests.bench.site import Bench
from tests.bench.transfers import submit

NAME = "upload (SMTP DATA), proxy CPU"
UNIT = "s/GB"
TARGET = "at most stunnel's"
CANDIDATES = PROXIES


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    return (await submit(candidate, effort)).cpu_s_per_gb
