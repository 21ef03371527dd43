"""A provider that could not answer for an account is asked for it again half a minute later, however many log in."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from emailproxy.config.model import SECONDS, Account, FlowName
from emailproxy.errors import ProviderUnavailable
from emailproxy.oauth.breaker import EARLY_S, Refrain

LULL_S = 30 * SECONDS
"""From the first attempt on: each time there are up to four (`attempts.MAX_ATTEMPTS`), and all of them within this."""
MAX_LULLS = 10_000
"""Accounts that are remembered; the oldest goes first."""


class Lull(NamedTuple):
    until_s: float
    """Monotonic."""
    reason: str


class Lulls:
    """By account: of many, one may be in trouble while the others are served."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._now_s = monotonic_s
        self._lulls: OrderedDict[str, Lull] = OrderedDict()
        self._changes = 0
        """How often somebody has changed what the provider is asked with."""

    @contextmanager
    def asking(self, account: Account) -> Iterator[None]:
        """Around what asks a provider for an account's tokens. A program of this machine's may be asked any time: who
        mends it wants to see that at once.

        Raises:
            Refrain: it could not answer a moment ago; nothing is to be sent.
        """
        if account.flow is FlowName.TOKEN_COMMAND:
            yield
            return
        self._check(account.key)
        begun_s, changes = self._now_s(), self._changes
        try:
            yield
        except Refrain:  # nothing was sent now, either
            raise
        except ProviderUnavailable as error:
            # What was asked before a change says nothing of what comes after it; where the provider says when to come
            # again, the breaker sees to it.
            if error.retry_after_s is None and changes == self._changes:
                self._remember(account.key, Lull(begun_s + LULL_S, str(error)))
            raise

    def forget(self, account: str | None = None) -> None:
        """Somebody has changed this account's settings or state, or any's: whether it helps is to be seen at once."""
        self._changes += 1
        if account is None:
            self._lulls.clear()
        else:
            self._lulls.pop(account, None)

    def _remember(self, account: str, lull: Lull) -> None:
        self._lulls[account] = lull
        self._lulls.move_to_end(account)
        if len(self._lulls) > MAX_LULLS:
            self._lulls.popitem(last=False)

    def _check(self, account: str) -> None:
        lull = self._lulls.get(account)
        if lull is None:
            return
        left_s = lull.until_s - self._now_s()
        if left_s > EARLY_S:
            raise Refrain(f"{lull.reason}; try again in {math.ceil(left_s)} s", retry_after_s=left_s)
        del self._lulls[account]
