"""Wrong passwords, counted: guessing gets slow, and a throttled guess costs no key derivation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from emailproxy.config.model import SECONDS
from emailproxy.errors import TooManyLogins

MAX_COUNTED = 4096  # accounts and addresses remembered; strangers choose both, so the oldest make room


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many wrong passwords at once, and then one each `refill_s` seconds."""

    burst: int
    refill_s: float


PER_ACCOUNT = Allowance(burst=10, refill_s=6 * SECONDS)  # a mail program with an old password asks every minute
PER_ADDRESS = Allowance(burst=50, refill_s=1 * SECONDS)  # a gateway logs many people in from one address


class Throttle:
    """Counts failures per account and per address. What is warm never asks it: an owner is not locked out."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._now_s = monotonic_s
        self._spent: OrderedDict[tuple[str, str], float] = OrderedDict()
        """By kind and name: the moment from which its whole burst is there again."""

    def check(self, account: str, address: str) -> None:
        """Raises `TooManyLogins` where the account's or the address's wrong passwords are used up."""
        for kind, name, allowance in self._counters(account, address):
            full_at_s = self._spent.get((kind, name), 0.0)
            wait_s = full_at_s - self._now_s() - (allowance.burst - 1) * allowance.refill_s
            if wait_s > 0:
                raise TooManyLogins(f"too many wrong passwords for this {kind}; try again in {wait_s:.0f} s")

    def failed(self, account: str, address: str) -> None:
        for kind, name, allowance in self._counters(account, address):
            full_at_s = max(self._spent.get((kind, name), 0.0), self._now_s())
            self._spent[kind, name] = full_at_s + allowance.refill_s
            self._spent.move_to_end((kind, name))
        while len(self._spent) > MAX_COUNTED:
            self._spent.popitem(last=False)

    @staticmethod
    def _counters(account: str, address: str) -> list[tuple[str, str, Allowance]]:
        counters = [("account", account, PER_ACCOUNT)]
        return [*counters, ("address", address, PER_ADDRESS)] if address else counters
