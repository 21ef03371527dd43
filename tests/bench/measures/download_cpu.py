"""What the proxy's processes spend on a FETCH of a large mailbox."""

from __future__ import annotations

from tests.bench.candidate import PROXIES, Candidate
from tests.bench.effort import Effort
from tests.bench.site import Bench
from tests.bench.transfers import download

NAME = "download (IMAP FETCH), proxy CPU"
UNIT = "s/GB"
TARGET = "at most 0.9 of stunnel's"
CANDIDATES = PROXIES


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    return (await download(bench, candidate, effort)).cpu_s_per_gb
