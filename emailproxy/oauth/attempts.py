"""How often a provider is asked, and when it is left alone: the same for every library that asks."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from emailproxy.config.model import SECONDS
from emailproxy.errors import AuthorizationPending, ProviderRefused, ProviderUnavailable
from emailproxy.oauth.breaker import Breaker, Refrain
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.replies import Unreadable
from emailproxy.oauth.skew import Skew

TOTAL_S = 30 * SECONDS  # for all attempts together: what a mail client waits before it gives up
MAX_ATTEMPTS = 4
FIRST_DELAY_S = 0.5 * SECONDS  # doubled each time, and spread by half, so that many proxies do not ask in step
MAX_POLITE_WAIT_S = 5 * SECONDS  # a `Retry-After` up to here is waited out inside the login

T = TypeVar("T")


class Attempts:
    """Asks providers, again where that helps and does no harm; one breaker for each provider and client."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._breaker = Breaker(clock.monotonic_s)
        self.skew = Skew(clock)
        """Shared, so that a wrong clock is told once a provider."""

    async def run(self, client: str, attempt: Callable[[float], Awaitable[T]], *, once: bool = False) -> T:
        """What `attempt` yields, at the first or a later try.

        Args:
            client: provider and client ID: whom the provider's `Retry-After` is meant for.
            attempt: sends one request, within the seconds that it is given.
            once: never try twice (RFC 6749 section 4.1.2: a code used twice revokes what it granted).

        Raises:
            ProviderUnavailable, ProviderRefused: what `attempt` raised last; or, with nothing sent, that the
                provider asked us to wait.
        """
        deadline_s = self._clock.monotonic_s() + TOTAL_S
        for number in range(1, (1 if once else MAX_ATTEMPTS) + 1):
            try:
                async with self._breaker.permit(client, deadline_s - self._clock.monotonic_s()):
                    return await self._noted(client, attempt, deadline_s - self._clock.monotonic_s())
            except (Refrain, Unreadable, AuthorizationPending):
                raise
            except ProviderUnavailable as error:
                delay_s = delay_before(number, error.retry_after_s)
                out_of_time = self._clock.monotonic_s() + delay_s >= deadline_s
                if once or number == MAX_ATTEMPTS or delay_s > MAX_POLITE_WAIT_S or out_of_time:
                    raise
            await self._clock.sleep(delay_s)
        raise AssertionError("unreachable: the last attempt raises")

    async def _noted(self, client: str, attempt: Callable[[float], Awaitable[T]], left_s: float) -> T:
        """One attempt, and what the breaker learns from it."""
        try:
            answer = await attempt(left_s)
        except (ProviderRefused, AuthorizationPending):
            self._breaker.closed(client)
            raise
        except ProviderUnavailable as error:
            if error.retry_after_s is not None:
                self._breaker.opened(client, error.retry_after_s)
            raise
        self._breaker.closed(client)
        return answer


def delay_before(number: int, asked_s: float | None) -> float:
    """Seconds from the end of attempt `number` to the next."""
    if asked_s is not None:
        return asked_s
    doubled_s: float = FIRST_DELAY_S * 2 ** (number - 1)
    return doubled_s * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, hides nothing
