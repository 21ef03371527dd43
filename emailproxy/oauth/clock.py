"""Time as a value: tests turn it, nobody sleeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

LATEST_S = 253_402_214_400  # 9999-12-31: beyond it, where a damaged file may go, is no calendar


class Now(NamedTuple):
    """One moment, by both clocks."""

    wall_s: float
    monotonic_s: float


def rfc3339(at_s: float) -> str:
    """A moment for programs, to the second, in UTC (RFC 3339)."""
    moment = datetime.fromtimestamp(min(int(at_s), LATEST_S), UTC)
    return moment.isoformat().replace("+00:00", "Z")


async def wait(event: asyncio.Event, timeout_s: float) -> None:
    """Until the event is set, or so many seconds have passed."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


@dataclass(frozen=True, slots=True)
class Clock:
    """The two clocks and the two ways to wait."""

    wall_s: Callable[[], float] = time.time
    """Seconds since the epoch: what token lifetimes are kept in. Somebody may set it."""
    monotonic_s: Callable[[], float] = time.monotonic
    """Seconds of a clock that nobody sets: what waits and limits are measured with. It may stand still while the
    machine sleeps."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    wait: Callable[[asyncio.Event, float], Awaitable[None]] = wait

    def now(self) -> Now:
        return Now(self.wall_s(), self.monotonic_s())

    def now_s(self) -> int:
        return int(self.wall_s())
