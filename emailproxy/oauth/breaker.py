"""One breaker per provider and client: while `Retry-After` is in force, nobody asks again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from emailproxy.errors import ProviderUnavailable

MAX_THROTTLED = 1024
"""Clients of providers that are remembered as throttled; the oldest goes first."""


class Refrain(ProviderUnavailable):
    """Nothing was sent: the provider's `Retry-After` is in force."""


@dataclass(slots=True)
class Throttled:
    until_s: float
    probe: asyncio.Lock = field(default_factory=asyncio.Lock)


class Breaker:
    """Closed: everybody may ask. Open: nobody. Half open, once the time is over: one at a time, until one succeeds."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._now_s = monotonic_s
        self._throttled: OrderedDict[str, Throttled] = OrderedDict()

    @asynccontextmanager
    async def permit(self, client: str) -> AsyncIterator[None]:
        """Leave to send one request.

        Raises:
            Refrain: at once, while the provider's `Retry-After` is in force.
        """
        throttled = self._throttled.get(client)
        if throttled is None:
            yield
            return
        self._check(throttled)
        async with throttled.probe:  # a hundred logins waited for the end of the window: one of them asks
            self._check(throttled)
            yield

    def _check(self, throttled: Throttled) -> None:
        left_s = throttled.until_s - self._now_s()
        if left_s > 0:
            raise Refrain(f"the provider asked us to wait; try again in {left_s:.0f} s", retry_after_s=left_s)

    def opened(self, client: str, wait_s: float) -> None:
        """The provider answered: not before `wait_s` seconds from now."""
        throttled = self._throttled.setdefault(client, Throttled(0.0))
        throttled.until_s = max(throttled.until_s, self._now_s() + wait_s)
        if len(self._throttled) > MAX_THROTTLED:
            self._throttled.popitem(last=False)

    def closed(self, client: str) -> None:
        """The provider answered sensibly."""
        throttled = self._throttled.pop(client, None)
        if throttled is not None:
            throttled.until_s = 0.0  # for those who wait for the probe
