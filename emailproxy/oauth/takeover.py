"""What another proxy kept of an account becomes the account's record here, once its password is given: no new consent.

Its file is never written. Once the account has a record, nobody looks there any more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from emailproxy.config.model import Account, Cached
from emailproxy.oauth import fernet
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.fernet import Opened
from emailproxy.oauth.keyring import Keyring
from emailproxy.oauth.records import sealed, with_client_secret
from emailproxy.secret import Secret
from emailproxy.store.base import Record, TokenStore
from emailproxy.wire.events import LOCAL, Visit

log = logging.getLogger("emailproxy.oauth")

CachedOf = Callable[[Account], Cached | None]
"""What another proxy kept of an account."""


def nothing(account: Account) -> None:
    """A `CachedOf` where there was no other proxy."""
    return


class Takeover:
    """First logins of accounts that another proxy served."""

    def __init__(self, records: TokenStore, keyring: Keyring, cached: CachedOf, *, clock: Clock) -> None:
        self._records = records
        self._keyring = keyring
        self._cached = cached
        self._clock = clock
        self._complained: set[str] = set()

    def knows(self, account: Account) -> bool:
        """Whether anything is there to be taken over."""
        cached = self._cached(account)
        return cached is not None and bool(fernet.values_of(cached))

    async def claimed(self, account: Account, password: Secret, visit: Visit = LOCAL, *, counts: bool = True) -> bool:
        """Whether the account, which had no record, has one now; its password is then its first slot's.

        Args:
            counts: whether one that opens nothing is a wrong password; not yet, where the provider is asked next.

        Raises:
            WrongPassword: the password does not open what is there.
            TooManyLogins: too many were wrong; nothing was derived.
            StateError: the record cannot be stored.
        """
        cached = self._cached(account)
        if cached is None or not fernet.values_of(cached):
            return False
        if not fernet.whole_in(cached):
            self._tell_damage(account, tuple(fernet.values_of(cached)))
            return False
        opened = await self._keyring.try_password(
            account, visit, lambda: fernet.opened(cached, account.name, password), counts=counts
        )
        self._tell_damage(account, opened.damaged)
        lockbox, key = await self._keyring.new_lockbox(account, password, visit.address)
        async with self._records.locked(account.key) as record:
            if record is not None:
                return True  # another process was faster
            await self._records.save(self._record(Record(account.key, lockbox), opened))
        self._keyring.remember(account, lockbox, password, key)
        log.info(
            "what another proxy kept for %s is taken over, and the password that opened it is the account's here",
            account.name,
        )
        return True

    def _record(self, record: Record, opened: Opened) -> Record:
        if opened.client_secret is not None:
            record = with_client_secret(record, opened.client_secret)
        return record if opened.tokens is None else sealed(record, opened.tokens, now_s=self._clock.now_s())

    def _tell_damage(self, account: Account, damaged: tuple[str, ...]) -> None:
        """Once an account: it may log in often before it is signed in."""
        if damaged and account.key not in self._complained:
            self._complained.add(account.key)
            log.warning(
                "the %s that another proxy kept for %s cannot be read and counts as absent: it is damaged",
                " and ".join(damaged), account.name,
            )  # fmt: skip
