"""How many sessions of one account stand at once: the next login waits its turn, first come, first served."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emailproxy.errors import TooManySessions

if TYPE_CHECKING:
    from emailproxy.config.model import MailServer, Route
    from emailproxy.net.shared import SessionLimits

# "432 4.3.2 STOREDRV.ClientSubmit; Concurrent connections limit exceeded" is what a mailbox's fourth submission hears
MICROSOFT_SUBMISSION = frozenset({"smtp.office365.com", "smtp-mail.outlook.com"})
MICROSOFT_SUBMISSIONS = 3


def limit_of(
    protocol: str, route: Route, of_section: int | None, limits: SessionLimits, target: MailServer
) -> int | None:
    """How many sessions of one account and protocol may stand: the account's say, its listener's, everybody's, or what
    its provider is known for; None: as many as come."""
    for said in (route.max_connections, of_section, limits.max_connections_per_account):
        if said is not None:
            return said
    if protocol == "SMTP" and target.address.casefold().rstrip(".") in MICROSOFT_SUBMISSION:
        return MICROSOFT_SUBMISSIONS
    return None


@dataclass(slots=True)
class Turn:
    """A login that waits."""

    limit: int
    granted: asyncio.Future[None]


@dataclass(slots=True)
class Queue:
    """The sessions of one account and protocol: how many stand, and who waits."""

    standing: int = 0
    waiting: deque[Turn] = field(default_factory=deque)


class Place:
    """One session's; `leave` gives it back."""

    def __init__(self, places: Places, key: tuple[str, str]) -> None:
        self._places = places
        self._key: tuple[str, str] | None = key

    def leave(self) -> None:
        """To say so twice does no harm."""
        key, self._key = self._key, None
        if key is not None:
            self._places.release(key)


class Places:
    """The sessions of all accounts. An account that has none takes no memory."""

    def __init__(self) -> None:
        self._queues: dict[tuple[str, str], Queue] = {}

    async def take(self, account: str, protocol: str, limit: int | None, patience_s: float) -> Place:
        """A place, at once or when it is this login's turn; without a limit it is only counted.

        Raises:
            TooManySessions: it was not, within `patience_s` seconds.
        """
        place = self.take_at_once(account, protocol, limit)
        if place is None:
            assert limit is not None
            key = (account, protocol)
            await self._wait(key, self._queues[key], limit, patience_s)
            place = Place(self, key)
        return place

    def take_at_once(self, account: str, protocol: str, limit: int | None) -> Place | None:
        """A place, or None where others wait or all are taken."""
        key = (account, protocol)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = Queue()
        elif limit is not None and (queue.waiting or queue.standing >= limit):
            return None
        queue.standing += 1
        return Place(self, key)

    async def _wait(self, key: tuple[str, str], queue: Queue, limit: int, patience_s: float) -> None:
        turn = Turn(limit, asyncio.get_running_loop().create_future())
        queue.waiting.append(turn)
        try:
            async with asyncio.timeout(patience_s):
                await asyncio.shield(turn.granted)
        except TimeoutError:
            if turn.granted.done():
                return
            self._give_up(key, queue, turn)
            account, protocol = key
            raise TooManySessions(
                f"{account} has {queue.standing} {protocol} sessions already and may have {limit}; none ended within "
                f"{patience_s:.0f} s; close some, or raise max_connections_per_account if the provider allows more"
            ) from None
        except asyncio.CancelledError:
            if turn.granted.done():
                self.release(key)
            else:
                self._give_up(key, queue, turn)
            raise

    def _give_up(self, key: tuple[str, str], queue: Queue, turn: Turn) -> None:
        turn.granted.cancel()
        queue.waiting.remove(turn)
        self._settle(key, queue)

    def release(self, key: tuple[str, str]) -> None:
        """For `Place.leave`."""
        queue = self._queues[key]
        queue.standing -= 1
        self._settle(key, queue)

    def standing(self) -> Counter[str]:
        """How many sessions of each account there are, of all protocols together."""
        counts: Counter[str] = Counter()
        for (account, _), queue in self._queues.items():
            counts[account] += queue.standing
        return counts

    def _settle(self, key: tuple[str, str], queue: Queue) -> None:
        """Whose turn it is goes ahead; an account without sessions is forgotten."""
        while queue.waiting and queue.standing < queue.waiting[0].limit:
            queue.standing += 1
            queue.waiting.popleft().granted.set_result(None)
        if not queue.standing and not queue.waiting:
            del self._queues[key]
