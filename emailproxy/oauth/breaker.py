"""One breaker per provider and client: while `Retry-After` is in force, nobody asks again."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from emailproxy.errors import ProviderUnavailable

MAX_THROTTLED = 1024
"""Clients of providers that are remembered as throttled; the oldest goes first."""
EARLY_S = 0.01
"""Timers of event loops end up to a millisecond early: who slept for as long as was asked may ask."""


class Refrain(ProviderUnavailable):
    """Nothing was sent, and to ask again at once would not help."""


@dataclass(slots=True)
class Throttled:
    until_s: float
    probe: asyncio.Lock = field(default_factory=asyncio.Lock)


class Breaker:
    """Closed: everybody may ask. Open: nobody. Half open, once the time is over: one, until it is answered."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._now_s = monotonic_s
        self._throttled: OrderedDict[str, Throttled] = OrderedDict()

    @asynccontextmanager
    async def permit(self, client: str, patience_s: float) -> AsyncIterator[None]:
        """Leave to send one request.

        Raises:
            Refrain: at once, while the provider's `Retry-After` is in force; or one that asks after its end had
                no answer within `patience_s` seconds.
        """
        throttled = self._throttled.get(client)
        if throttled is None:
            yield
            return
        self._check(throttled)
        try:  # a hundred logins waited for the end of the window: one of them asks
            async with asyncio.timeout(patience_s):
                await throttled.probe.acquire()
        except TimeoutError:
            raise Refrain("the provider asked us to wait, and does not answer since; try again later") from None
        try:
            self._check(throttled)
            if self._throttled.get(client) is throttled:
                yield
                return
        finally:
            throttled.probe.release()
        yield  # it was answered meanwhile: everybody may ask

    def _check(self, throttled: Throttled) -> None:
        left_s = throttled.until_s - self._now_s()
        if left_s > EARLY_S:
            wait = f"try again in {math.ceil(left_s)} s"
            raise Refrain(f"the provider asked us to wait; {wait}", retry_after_s=left_s)

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
