"""How fast a FETCH of a large mailbox is."""

from __future__ import annotations

from tests.bench.candidate import EVERYONE, Candidate
from tests.bench.effort import Effort
from tests.bench.site import Bench
from tests.bench.transfers import download

NAME = "download (IMAP FETCH), speed"
UNIT = "MB/s"
TARGET = ""
BETTER = "higher"
CANDIDATES = EVERYONE


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    return (await download(bench, candidate, effort)).mb_per_s
