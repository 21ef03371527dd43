"""Turns at key derivation: few at a time, however many clients ask; who waits is chosen anew each time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from emailproxy.errors import TooManyLogins
from emailproxy.oauth.throttle import Rank

MAX_WAITING = 256  # in all: at 0.1 s each, whoever comes behind so many would have given up before
MAX_OF_SITE = 64  # a gateway's people, or a mail program's accounts after a restart
MAX_OF_SUSPECT = 2  # of an address that was wrong lately
MAX_OF_LOGIN = 4  # of one account from one address: different passwords, as those that are alike wait together
KEPT = 1  # place, where there are several, for who was not wrong lately

QUEUE_FULL = "too many logins wait for the check of their passwords; try again in a minute"


@dataclass(slots=True, eq=False)
class _Waiter:
    account: str
    site: str
    rank: Callable[[], Rank]
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Turns:
    """A queue of the best rank first and, in a rank, of the last come first.

    When more come than can be served, the first in line would be who has given up already, and everybody would wait
    too long; so those who waited longest give up their places.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._kept = min(places - 1, KEPT)
        self._waiting: list[_Waiter] = []

    @asynccontextmanager
    async def turn(self, account: str, site: str, rank: Callable[[], Rank]) -> AsyncIterator[None]:
        """Holds a place.

        Args:
            site: of the client; empty for the command line and ourselves, whom only the whole queue's end stops.
            rank: asked again whenever a place becomes free.

        Raises:
            TooManyLogins: too many wait.
        """
        if self._may_begin(rank()):
            self._free -= 1
        else:
            await self._wait(_Waiter(account, site, rank))
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, waiter: _Waiter) -> None:
        self._make_room(waiter)
        self._waiting.append(waiter)
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not waiter.granted.cancelled() and waiter.granted.exception() is None:
                self._pass_on()
            raise

    def _make_room(self, waiter: _Waiter) -> None:
        rank = waiter.rank()
        if waiter.site:
            same = [other for other in self._waiting if other.site == waiter.site]
            most = MAX_OF_SUSPECT if rank is Rank.SUSPECT else MAX_OF_SITE
            if len(same) >= most or sum(other.account == waiter.account for other in same) >= MAX_OF_LOGIN:
                raise TooManyLogins(QUEUE_FULL)
        if len(self._waiting) >= MAX_WAITING:
            worst = max(self._waiting, key=lambda other: other.rank())  # of several the first: who waits longest
            if worst.rank() < rank:
                raise TooManyLogins(QUEUE_FULL)
            self._waiting.remove(worst)
            if not worst.granted.done():
                worst.granted.set_exception(TooManyLogins(QUEUE_FULL))

    def _may_begin(self, rank: Rank) -> bool:
        """Suspects, and work that no login waits for, leave a place free: who was not wrong waits for none of it."""
        return self._free > (self._kept if rank >= Rank.SUSPECT else 0)

    def _pass_on(self) -> None:
        """A place is free again."""
        self._free += 1
        while waiting := [waiter for waiter in reversed(self._waiting) if not waiter.granted.done()]:
            best = min(waiting, key=lambda waiter: waiter.rank())  # of several the first: who came last
            if not self._may_begin(best.rank()):
                return
            self._free -= 1
            self._waiting.remove(best)
            best.granted.set_result(None)

    def __len__(self) -> int:
        return len(self._waiting)
