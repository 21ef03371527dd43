"""Ten thousand mail programs that are logged in and say nothing, in front of one process."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from tests.bench.candidate import Candidate
from tests.bench.candidates import STARTS
from tests.bench.clients import Holder
from tests.bench.effort import Effort
from tests.bench.launch import resident_mib
from tests.bench.processes import affordable
from tests.bench.site import Bench, Servers

MANY, FEW = 10_000, 200
AT_ONCE = 64
IDLE_S, SHORT_IDLE_S = 20.0, 0.5
SETTLE_S = 2.0  # what opening them has left to do is not idleness


@dataclass(frozen=True, slots=True)
class Crowd:
    """What they cost."""

    alive_percent: float
    """How many of those that logged in answered a NOOP at the end."""
    mib: float
    """Resident memory of the candidate's processes, what they have at rest included."""
    idle_cpu_percent: float
    """Of a core, while nobody says anything."""


async def crowd(bench: Bench, candidate: Candidate, effort: Effort) -> Crowd | None:
    """This round's; made once."""
    return await bench.shared("crowd", candidate, lambda: _crowd(bench, candidate, effort))


async def _crowd(bench: Bench, candidate: Candidate, effort: Effort) -> Crowd | None:
    """One more of this candidate, in front of the stub, with as many clients as its descriptors allow."""
    count = FEW if effort.short else affordable(MANY)
    servers = Servers(bench.stub.imap, bench.stub.pop, bench.stub.smtp)
    async with STARTS[candidate.name](bench, servers) as running:
        if running is None or running.imap is None or running.tree is None:
            return None
        tree = running.tree
        async with Holder(running.imap, running.account, at_once=AT_ONCE) as holder:
            await holder.open(count)
            await asyncio.sleep(0 if effort.short else SETTLE_S)
            start_s, cpu_s = time.perf_counter(), tree.cpu_s()
            await asyncio.sleep(SHORT_IDLE_S if effort.short else IDLE_S)
            busy = (tree.cpu_s() - cpu_s) / (time.perf_counter() - start_s)
            alive = await holder.alive()
            return Crowd(100 * alive / count, resident_mib(tree), 100 * busy)
