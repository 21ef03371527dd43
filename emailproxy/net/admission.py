"""Who may come in: how many connections there are, and where they come from."""

from __future__ import annotations

import ipaddress
import logging
import time
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from emailproxy.net.memory import Room
from emailproxy.net.trimming import Trimming

if TYPE_CHECKING:
    from emailproxy.config.model import Networks
    from emailproxy.net.shared import SessionLimits

log = logging.getLogger("emailproxy.net")

COMPLAINT_S = 1.0  # strangers cause at most one log line in so many seconds


class NotAdmitted(Exception):
    """A connection is turned away; the text is for the client and for the log."""


def plain_address(peername: object) -> str:
    """The IP address of a peer; IPv4 within IPv6 is IPv4, and a zone is left out."""
    text = str(peername[0]) if isinstance(peername, (tuple, list)) and peername else "unknown"
    return text.partition("%")[0].removeprefix("::ffff:")


def within(address: str, networks: Networks) -> bool:
    """Whether an address belongs to one of the networks; what is no address belongs to none."""
    if not networks:
        return False
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(known in network for network in networks)


@lru_cache(maxsize=1024)
def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


class Seldom:
    """Log lines that anybody can cause: at most one a second, each with how many there were by then."""

    def __init__(self) -> None:
        self._last_s: float | None = None
        self._count = 0

    def warn(self, text: str, *args: object) -> None:
        self._count += 1
        now_s = time.monotonic()
        if self._last_s is None or now_s - self._last_s >= COMPLAINT_S:
            log.warning(f"{text} (%d so far)", *args, self._count)
            self._last_s = now_s


class Ticket:
    """One connection's place among those that the doorman counts; `leave` gives it back."""

    __slots__ = ("_address", "_doorman", "_inside", "_undecided", "asking", "give_way")

    def __init__(self, doorman: Doorman) -> None:
        self._doorman = doorman
        self._address: str | None = None
        self._inside = True
        self._undecided = True
        self.asking = False
        """It has sent a login, and waits for the answer: this one is not asked to go."""
        self.give_way: Callable[[], None] | None = None
        """Ends the connection at once, for somebody else's sake."""
        doorman.inside += 1
        doorman.undecided += 1

    def known_as(self, address: str) -> None:
        """Where the connection comes from, once that is known.

        Raises:
            NotAdmitted: there are too many from there.
        """
        self._doorman.count(address)
        self._doorman.waits(self, address)
        self._address = address

    def decided(self) -> None:
        """The login went through."""
        if self._undecided:
            self._undecided = False
            self._doorman.undecided -= 1
            if self._address is not None:
                self._doorman.no_longer_waits(self, self._address)

    def leave(self) -> None:
        """The connection is over; to say so twice does no harm."""
        if not self._inside:
            return
        self._inside = False
        self.give_way = None
        self.decided()
        self._doorman.inside -= 1
        if self._address is not None:
            self._doorman.discount(self._address)
        self._doorman.trimming.one_left()


class Doorman:
    """Counts the connections of all listeners: in all, by address, and those whose login is not decided yet.

    Where there is no room, addresses share fairly: of the one with the most undecided connections the oldest goes, if
    the newcomer's address has no more than it even so. Whoever comes from elsewhere gets in, however many silent
    connections somebody opens.
    """

    def __init__(self, limits: SessionLimits) -> None:
        self.limits = limits
        self.inside = 0
        self.undecided = 0
        self._by_address: Counter[str] = Counter()
        self._waiting: dict[str, dict[Ticket, None]] = {}
        """The undecided ones of each address, the oldest first."""
        self._room = Room()
        self.trimming = Trimming(lambda: self.inside)
        self._complaints = Seldom()

    def admit(self, address: str | None = None) -> Ticket:
        """Lets a connection in; its address may not be known yet.

        Raises:
            NotAdmitted: there are too many.
        """
        if self.inside >= self.limits.max_connections and not self._make_room(address):
            raise NotAdmitted("too many connections; try again later")
        if self.undecided >= self.limits.max_unauthenticated and not self._make_room(address):
            raise NotAdmitted("too many connections that have not logged in; try again later")
        if not self._room.is_for_one_more(self.inside):
            raise NotAdmitted("there is no memory left for another connection; try again later")
        return Ticket(self)

    def _make_room(self, address: str | None) -> bool:
        if not self._waiting:
            return False
        crowded = max(self._waiting, key=lambda one: len(self._waiting[one]))
        own = len(self._waiting.get(address, ())) if address is not None else 0
        if len(self._waiting[crowded]) <= own + 1:
            return False
        for ticket in self._waiting[crowded]:
            if not ticket.asking and (give_way := ticket.give_way) is not None:
                ticket.leave()
                give_way()
                self._complaints.warn("no place was left: the oldest of %s that had not logged in gave way", crowded)
                return True
        return False

    def waits(self, ticket: Ticket, address: str) -> None:
        """For `Ticket.known_as`."""
        self._waiting.setdefault(address, {})[ticket] = None

    def no_longer_waits(self, ticket: Ticket, address: str) -> None:
        """For `Ticket.decided`."""
        waiting = self._waiting[address]
        del waiting[ticket]
        if not waiting:
            del self._waiting[address]

    def count(self, address: str) -> None:
        """For `Ticket.known_as`."""
        if self._by_address[address] >= self.limits.max_connections_per_address:
            if not self._by_address[address]:
                del self._by_address[address]
            raise NotAdmitted("too many connections from your address; try again later")
        self._by_address[address] += 1

    def discount(self, address: str) -> None:
        """For `Ticket.leave`."""
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
