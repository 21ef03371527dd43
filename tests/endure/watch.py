"""The proxy's process from outside: memory, file descriptors, CPU, and what its log says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from tests.bench.processes import Tree
from tests.e2e.harness.proxy import Proxy
from tests.endure.frame import Stage

LOOK_S = 0.1
"""Between two looks at a process: reading /proc costs a fraction of a millisecond."""
GRIEF = (" ERROR ", " CRITICAL ", "Traceback", "a fault of emailproxy", "was never retrieved", "was never awaited")
"""What stands in the log where the program itself, not a client, a server or a provider, is at fault."""


class Peak:
    """The most memory seen so far."""

    def __init__(self) -> None:
        self.kib = 0


class Watch:
    """One running server, its worker processes included."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.tree = Tree(proxy.pid)
        self._log_from = len(proxy.log)

    @property
    def rss_kib(self) -> int:
        return self.tree.rss_kib()

    @property
    def descriptors(self) -> int:
        return self.tree.descriptors()

    @asynccontextmanager
    async def peak(self) -> AsyncIterator[Peak]:
        """The most resident memory meanwhile."""
        peak = Peak()

        async def look() -> None:
            while True:
                peak.kib = max(peak.kib, self.rss_kib)
                await asyncio.sleep(LOOK_S)

        looking = asyncio.create_task(look())
        try:
            yield peak
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
            peak.kib = max(peak.kib, self.rss_kib)

    async def cpu_percent(self, seconds: float) -> float:
        """The share of one core that it uses in the next seconds."""
        began_s, cpu_s = time.monotonic(), self.tree.cpu_s()
        await asyncio.sleep(seconds)
        return (self.tree.cpu_s() - cpu_s) / (time.monotonic() - began_s) * 100

    def complaints(self) -> list[str]:
        """Lines of the log, since the beginning of the watch, that speak of a fault of the program itself."""
        said = self.proxy.log[self._log_from :] + self.proxy.output
        return [line for line in said.splitlines() if any(word in line for word in GRIEF)]

    def judge_log(self, stage: Stage) -> None:
        complaints = self.complaints()
        for line in complaints[:5]:
            stage.say(f"in the log: {line}")
        stage.figure("lines in the log that speak of a fault of the program", len(complaints), exactly=0)


async def seconds_until(true: Callable[[], bool], within_s: float) -> float:
    """How long it takes until something is true; it is given so long.

    Returns:
        infinity, where it did not become true.
    """
    began_s = time.monotonic()
    while not true():
        if time.monotonic() - began_s > within_s:
            return float("inf")
        await asyncio.sleep(LOOK_S)
    return time.monotonic() - began_s
