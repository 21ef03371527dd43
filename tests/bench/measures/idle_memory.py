"""What one more idle connection, logged in to Dovecot, adds to the proxy's memory.

Each time in a process just started: what earlier connections left behind would be used again, and not be seen.
"""

from __future__ import annotations

from tests.bench.candidate import PROXIES, Candidate
from tests.bench.candidates import fresh
from tests.bench.clients import Holder
from tests.bench.effort import Effort
from tests.bench.site import Bench

NAME = "memory per idle logged-in connection"
UNIT = "KiB"
TARGET = "at most 36 KiB"
CANDIDATES = PROXIES


async def measure(bench: Bench, candidate: Candidate, effort: Effort) -> float | None:
    async with fresh(bench, candidate) as started:
        if started is None or started.tree is None or started.imap is None:
            return None
        async with Holder(started.imap, started.account, at_once=4) as held:
            await held.open(effort.warm_up)
            before_kib = started.tree.pss_kib()
            await held.open(effort.connections)
            after_kib = started.tree.pss_kib()
            alive = await held.alive()
    if alive != effort.warm_up + effort.connections:
        raise RuntimeError(f"{alive} of {effort.warm_up + effort.connections} connections are alive")
    return (after_kib - before_kib) / effort.connections
