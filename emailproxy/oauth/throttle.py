"""Wrong passwords and new accounts, counted: guessing and flooding get slow, and cost no key derivation then.

Wrong passwords count for the account from that address, for the address, and for the account. The first two make
their next try wait, twice as long each time. The third alone refuses nobody, as a stranger could lock the owner out:
an account that many guess at only allows each address fewer mistakes, and its logins queue behind others.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network

from emailproxy.config.model import MINUTES, SECONDS
from emailproxy.errors import TooManyLogins
from emailproxy.store.limits import plain_address

MAX_COUNTED = 4096  # of each kind; strangers choose accounts and addresses, so those that failed longest ago make room
FIRST_WAIT_S = 1 * SECONDS
SITE_BITS = 64  # RFC 4291 section 2.5.4: whoever has one IPv6 address has all of its /64
MAX_ADDRESS = 64  # characters of what is no IP address


@dataclass(frozen=True, slots=True)
class Ladder:
    """So many mistakes are free; then each waits twice as long as the one before."""

    what: str
    free: int
    longest_s: float
    """The longest wait, and how long it takes after a wait until one mistake is forgotten: the pace of who goes on."""

    def wait_s(self, mistakes: float) -> float:
        steps = mistakes - self.free
        return min(FIRST_WAIT_S * 2.0**steps, self.longest_s) if steps >= 0 else 0.0

    @property
    def most(self) -> int:
        """Where counting ends: beyond, the wait grows no longer."""
        return self.free + math.ceil(math.log2(self.longest_s / FIRST_WAIT_S))


PER_LOGIN = Ladder("wrong passwords for this account from this address", 5, 2 * MINUTES)
PER_ADDRESS = Ladder("wrong passwords from this address", 50, 30 * SECONDS)  # a gateway logs many people in
PER_ACCOUNT = Ladder("wrong passwords for this account", 20, 1 * MINUTES)
"""Nobody waits for these: beyond the free ones, the account is under attack."""
FREE_UNDER_ATTACK = 1


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many at once, and then one each `refill_s` seconds."""

    what: str
    burst: int
    refill_s: float


NEW_ACCOUNTS = Allowance("new accounts from this address", 100, 2 * SECONDS)  # a catch-all takes any name


class Rank(IntEnum):
    """Whose key derivation goes first."""

    CLEAN = 0
    UNDER_ATTACK = 1
    """The account is guessed at, but not from this address."""
    SUSPECT = 2
    """This address was wrong lately."""
    IDLE = 3
    """No login waits for it."""


class Tally:
    """Mistakes by name, each forgotten in time."""

    def __init__(self, ladder: Ladder, now_s: Callable[[], float]) -> None:
        self._ladder = ladder
        self._now_s = now_s
        self._mistakes: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """How many there were at the last one, and when that was."""

    def count(self, name: str) -> float:
        mistakes, at_s = self._mistakes.get(name, (0.0, 0.0))
        quiet_s = self._now_s() - at_s - self._ladder.wait_s(mistakes)
        return max(0.0, mistakes - max(0.0, quiet_s) / self._ladder.longest_s)

    def add(self, name: str) -> None:
        self._mistakes[name] = min(self.count(name) + 1, self._ladder.most), self._now_s()
        self._mistakes.move_to_end(name)
        if len(self._mistakes) > MAX_COUNTED:
            self._mistakes.popitem(last=False)

    def take_back(self, name: str, mistakes: float) -> None:
        known, at_s = self._mistakes.get(name, (0.0, 0.0))
        if known > mistakes:
            self._mistakes[name] = known - mistakes, at_s
        else:
            self._mistakes.pop(name, None)

    def check(self, name: str, stricter: int = 0) -> None:
        """Raises `TooManyLogins` while the last mistake's wait is not over; `stricter` takes free ones away."""
        mistakes, at_s = self._mistakes.get(name, (0.0, 0.0))
        if mistakes:
            left_s = at_s + self._ladder.wait_s(mistakes + stricter) - self._now_s()
            if left_s > 0:
                raise TooManyLogins(f"too many {self._ladder.what}; try again in {math.ceil(left_s)} s")

    def __len__(self) -> int:
        return len(self._mistakes)


class Throttle:
    """Who was wrong lately. What is warm never asks it: an owner is not locked out."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._now_s = monotonic_s
        self._logins = Tally(PER_LOGIN, monotonic_s)
        self._addresses = Tally(PER_ADDRESS, monotonic_s)
        self._accounts = Tally(PER_ACCOUNT, monotonic_s)
        self._begun: OrderedDict[str, float] = OrderedDict()
        """By address: the moment from which the whole burst of new accounts is there again."""

    def check(self, account: str, address: str) -> None:
        """Raises `TooManyLogins` where this address must wait before it tries another password."""
        site = site_of(address)
        stricter = PER_LOGIN.free - FREE_UNDER_ATTACK if self._is_under_attack(account) else 0
        self._logins.check(_login(account, site), stricter)
        self._addresses.check(site)

    def failed(self, account: str, address: str) -> None:
        """Counts a wrong password. The command line has no address, and counts for itself only."""
        site = site_of(address)
        self._logins.add(_login(account, site))
        if site:
            self._addresses.add(site)
            self._accounts.add(account)

    def take_back(self, account: str, address: str) -> None:
        """Takes back one `failed`: nobody knows whether the password was wrong."""
        self._forgive(account, site_of(address), 1)

    def succeeded(self, account: str, address: str) -> None:
        """The password was right: this address's mistakes with this account are forgotten, and no others."""
        site = site_of(address)
        mistakes = self._logins.count(_login(account, site))
        if mistakes:
            self._forgive(account, site, mistakes)

    def _forgive(self, account: str, site: str, mistakes: float) -> None:
        for tally, name in (
            (self._logins, _login(account, site)),
            (self._addresses, site),
            (self._accounts, account),
        ):
            tally.take_back(name, mistakes)

    def rank(self, account: str, address: str) -> Rank:
        site = site_of(address)
        if self._addresses.count(site) or self._logins.count(_login(account, site)):
            return Rank.SUSPECT
        return Rank.UNDER_ATTACK if self._is_under_attack(account) else Rank.CLEAN

    def _is_under_attack(self, account: str) -> bool:
        return self._accounts.count(account) >= PER_ACCOUNT.free

    def begin(self, address: str) -> None:
        """Counts an account that a login begins, or raises `TooManyLogins`. The command line may begin any number."""
        site, allowance, now_s = site_of(address), NEW_ACCOUNTS, self._now_s()
        if not site:
            return
        full_at_s = self._begun.get(site, 0.0)
        wait_s = full_at_s - now_s - (allowance.burst - 1) * allowance.refill_s
        if wait_s > 0:
            raise TooManyLogins(f"too many {allowance.what}; try again in {math.ceil(wait_s)} s")
        self._begun[site] = max(full_at_s, now_s) + allowance.refill_s
        self._begun.move_to_end(site)
        if len(self._begun) > MAX_COUNTED:
            self._begun.popitem(last=False)

    def __len__(self) -> int:
        """How much is remembered: at most four times `MAX_COUNTED`."""
        return len(self._logins) + len(self._addresses) + len(self._accounts) + len(self._begun)


@lru_cache(MAX_COUNTED)
def site_of(address: str) -> str:
    """What of an address one party has: an IPv4 address, an IPv6 network of 64 bits."""
    plain = plain_address(address)
    if isinstance(plain, IPv6Address):
        return str(IPv6Network((int(plain), SITE_BITS), strict=False))
    return address[:MAX_ADDRESS] if plain is None else str(plain)


def _login(account: str, site: str) -> str:
    return f"{site} {account}"
