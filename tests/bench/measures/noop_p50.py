"""How long a command and its reply take after the login."""

from __future__ import annotations

import asyncio
import statistics
import time

from tests.bench.candidate import EVERYONE, Candidate
from tests.bench.clients import Imap
from tests.bench.effort import Effort
from tests.bench.site import Bench

NAME = "NOOP round trip, p50"
UNIT = "us"
TARGET = "at most 1.05 of stunnel's"
CANDIDATES = EVERYONE


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    return await asyncio.to_thread(_p50_s, candidate, effort.noops) * 1_000_000


def _p50_s(candidate: Candidate, count: int) -> float:
    assert candidate.imap is not None
    took_s = []
    with Imap(candidate.imap) as client:
        client.login(candidate.account)
        for _ in range(count):
            start_s = time.perf_counter()
            client.noop()
            took_s.append(time.perf_counter() - start_s)
        client.logout()
    return statistics.median(took_s)
