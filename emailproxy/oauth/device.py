"""Polling for a device authorization (RFC 8628 sections 3.4 and 3.5)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from emailproxy.config.model import MINUTES, SECONDS, Account
from emailproxy.errors import (
    AuthorizationPending,
    ConsentRequired,
    EmailProxyError,
    LoginRefused,
    ProviderRefused,
    ProviderUnavailable,
    StateError,
)
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.flights import Flights

SLOW_DOWN_S = 5 * SECONDS  # RFC 8628 section 3.5: what `slow_down` adds, for this and all later polls
MIN_INTERVAL_S = 1 * SECONDS  # a provider that says 0 is not asked in a busy loop
MAX_BACKOFF_S = 1 * MINUTES  # codes live for some fifteen minutes: one that was entered should not wait for long

DECLINED = frozenset({"access_denied", "authorization_declined"})
EXPIRED = frozenset({"expired_token", "code_expired"})  # the second is Microsoft's older name
"""RFC 8628 section 3.5; the second is Microsoft's."""

log = logging.getLogger("emailproxy.oauth")

Poll = Callable[[], Coroutine[Any, Any, None]]
"""Asks once. It returns where nothing is left to ask for, the code's end included, and raises ProviderUnavailable
(AuthorizationPending) where it is to be asked again; any other error ends it."""


class Poller:
    """One loop for each code that this process waits for; another process may have one for the same code."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loops: dict[str, asyncio.Task[None]] = {}
        self._polls: Flights[None] = Flights()

    def follow(self, name: str, interval_s: int, poll: Poll) -> None:
        """Polls for the code of this name until nothing is left to ask for, unless that is going on already."""
        if name in self._loops:
            return
        loop = self._loops[name] = asyncio.get_running_loop().create_task(self._follow(interval_s, poll))
        loop.add_done_callback(lambda _: self._loops.pop(name))

    async def _follow(self, interval_s: float, poll: Poll) -> None:
        interval_s = wait_s = max(MIN_INTERVAL_S, interval_s)
        while True:
            await self._clock.wait(asyncio.Event(), wait_s)
            try:
                await self._polls.run(object(), poll)  # a poll under way outlives the loop: it may bring tokens
                return
            except AuthorizationPending as error:
                interval_s += SLOW_DOWN_S if error.slow_down else 0
                wait_s = interval_s
            except ProviderUnavailable as error:
                # RFC 8628 section 3.5: exponential backoff. What the provider asked for counts where it is longer.
                wait_s = max(interval_s, min(2 * wait_s, MAX_BACKOFF_S), error.retry_after_s or 0)
            except EmailProxyError as error:
                log.warning("a device sign-in is not asked for any more: %s", error)
                return
            except Exception as error:
                log.error("a device sign-in is not asked for any more (%s)", type(error).__name__)
                return

    async def close(self) -> None:
        """Ends the loops; polls under way may bring their tokens to the disk."""
        loops = list(self._loops.values())
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await self._polls.close()


def last_word(account: Account, error: LoginRefused | StateError) -> LoginRefused | StateError:
    """A refusal of a device code, as who waits should hear it (RFC 8628 section 3.5)."""
    if not isinstance(error, ProviderRefused):
        return error
    if error.code in DECLINED:
        return ConsentRequired(f"{account.name}: {error}; try again for a new code")
    if error.code in EXPIRED:
        return ConsentRequired(f"nobody signed {account.name} in before the code ended; try again for a new code")
    return error
