"""Time as a value: tests turn it, nobody sleeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """The two clocks and the one way to wait."""

    wall_s: Callable[[], float] = time.time
    """Seconds since the epoch: what token lifetimes are kept in."""
    monotonic_s: Callable[[], float] = time.monotonic
    """Seconds of a clock that nobody sets: what waits and limits are measured with."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def now_s(self) -> int:
        return int(self.wall_s())
