"""Wrong passwords and new accounts, counted: guessing and flooding get slow, and cost no key derivation then."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from emailproxy.config.model import SECONDS
from emailproxy.errors import TooManyLogins

MAX_COUNTED = 4096  # accounts and addresses remembered; strangers choose both, so the oldest make room


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many at once, and then one each `refill_s` seconds."""

    what: str
    burst: int
    refill_s: float


PER_ACCOUNT = Allowance("wrong passwords for this account", 10, 6 * SECONDS)  # an old one is tried every minute
PER_ADDRESS = Allowance("wrong passwords from this address", 50, 1 * SECONDS)  # a gateway logs many people in
NEW_ACCOUNTS = Allowance("new accounts from this address", 100, 2 * SECONDS)  # a catch-all takes any name


class Throttle:
    """Counts per account and per address. What is warm never asks it: an owner is not locked out."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._now_s = monotonic_s
        self._spent: OrderedDict[tuple[str, str], float] = OrderedDict()
        """By allowance and name: the moment from which its whole burst is there again."""

    def check(self, account: str, address: str) -> None:
        """Raises `TooManyLogins` where the account's or the address's wrong passwords are used up."""
        self._check(PER_ACCOUNT, account)
        self._check(PER_ADDRESS, address)

    def failed(self, account: str, address: str) -> None:
        """Counts a wrong password. The command line has no address."""
        self._spend(PER_ACCOUNT, account)
        if address:
            self._spend(PER_ADDRESS, address)

    def forgive(self, account: str, address: str) -> None:
        """Takes back a `failed`: the password was not wrong."""
        for counter, refill_s in (
            ((PER_ACCOUNT.what, account), PER_ACCOUNT.refill_s),
            ((PER_ADDRESS.what, address), PER_ADDRESS.refill_s),
        ):
            if counter in self._spent:
                self._spent[counter] -= refill_s

    def begin(self, address: str) -> None:
        """Counts an account that a login begins, or raises `TooManyLogins`."""
        self._check(NEW_ACCOUNTS, address)
        if address:
            self._spend(NEW_ACCOUNTS, address)

    def _check(self, allowance: Allowance, name: str) -> None:
        full_at_s = self._spent.get((allowance.what, name), 0.0)
        wait_s = full_at_s - self._now_s() - (allowance.burst - 1) * allowance.refill_s
        if wait_s > 0:
            raise TooManyLogins(f"too many {allowance.what}; try again in {math.ceil(wait_s)} s")

    def _spend(self, allowance: Allowance, name: str) -> None:
        counter = allowance.what, name
        self._spent[counter] = max(self._spent.get(counter, 0.0), self._now_s()) + allowance.refill_s
        self._spent.move_to_end(counter)
        if len(self._spent) > MAX_COUNTED:
            self._spent.popitem(last=False)
