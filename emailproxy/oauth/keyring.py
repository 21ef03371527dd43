"""Local passwords: warm in microseconds, cold through Argon2id in threads of their own, wrong ones throttled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from emailproxy.config.model import Account
from emailproxy.errors import StateError, WrongPassword
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.flights import Flights
from emailproxy.oauth.throttle import Throttle
from emailproxy.secret import Secret
from emailproxy.store import sealing
from emailproxy.store.base import Lockbox, Record, TokenStore
from emailproxy.store.sealing import AccountKey

KDF_THREADS = 2  # 64 MiB each: more at once would let wrong passwords fill the memory

log = logging.getLogger("emailproxy.oauth")

T = TypeVar("T")


class Keyring:
    """What the passwords of this process open."""

    def __init__(self, records: TokenStore, *, clock: Clock, cost: sealing.Cost = sealing.DEFAULT_COST) -> None:
        self._records = records
        self._clock = clock
        self._cost = cost
        self._warm = sealing.WarmCache()
        self._throttle = Throttle(clock.monotonic_s)
        self._pool = ThreadPoolExecutor(KDF_THREADS, thread_name_prefix="kdf")
        self._turns = asyncio.Semaphore(KDF_THREADS)
        self._upgrades: Flights[None] = Flights()

    def find(self, account: Account, lockbox: Lockbox, password: Secret) -> AccountKey | None:
        """The key, where this password opened this lockbox before in this process."""
        return self._warm.find(account.key, lockbox, password)

    async def unlock(
        self, account: Account, lockbox: Lockbox, password: Secret, address: str = "", *, counts: bool = True
    ) -> AccountKey:
        """The account's key.

        Args:
            counts: whether one that opens no slot is a wrong password; not yet, where the provider is asked next.

        Raises:
            WrongPassword: the password opens no slot; nothing is changed.
            TooManyLogins: too many were wrong; nothing was derived.
            StateDamaged: the lockbox cannot be used.
        """
        warm = self.find(account, lockbox, password)
        if warm is not None:
            return warm
        self._throttle.check(account.key, address)
        async with self._turns:
            self._throttle.check(account.key, address)  # those who came before us may have used it up
            try:
                key, _slot = await self._derive(lambda: sealing.unlock(lockbox, account.key, password))
            except WrongPassword:
                if counts:
                    self._throttle.failed(account.key, address)
                raise
        self.remember(account, lockbox, password, key)
        return key

    @contextmanager
    def guess(self, account: Account, address: str) -> Iterator[None]:
        """A password that somebody else is asked about: it counts as wrong until it turns out not to be, so that
        guesses in parallel are counted, too. One that is wrong raises WrongPassword.

        Raises:
            TooManyLogins: too many were wrong; nobody is to be asked.
        """
        self._throttle.check(account.key, address)
        self._throttle.failed(account.key, address)
        wrong = False
        try:
            yield
        except WrongPassword:
            wrong = True
            raise
        finally:
            if not wrong:
                self._throttle.forgive(account.key, address)

    async def new_lockbox(self, account: Account, password: Secret, address: str = "") -> tuple[Lockbox, AccountKey]:
        """A new key pair with this password as its first slot. It is nobody's until it is stored.

        Raises:
            TooManyLogins: this address has begun too many accounts; nothing was derived.
        """
        self._throttle.begin(address)
        now_s = self._clock.now_s()
        async with self._turns:
            return await self._derive(lambda: sealing.new_lockbox(account.key, password, now_s=now_s, cost=self._cost))

    def remember(self, account: Account, lockbox: Lockbox, password: Secret, key: AccountKey) -> None:
        self._warm.remember(account.key, lockbox, password, key)

    def upgrade_if_behind(self, account: Account, record: Record, password: Secret, key: AccountKey) -> None:
        """Raises the stored cost to today's, beside the login that gave the password."""
        if sealing.needs_upgrade(record.lockbox, self._cost):
            self._upgrades.start(account.key, lambda: self._upgrade(account, record.lockbox, password, key))

    async def _upgrade(self, account: Account, behind: Lockbox, password: Secret, key: AccountKey) -> None:
        try:
            async with self._turns:
                lockbox = await self._derive(
                    lambda: sealing.upgrade(behind, account.key, key, password, cost=self._cost)
                )
            async with self._records.locked(account.key) as record:
                if record is None or record.lockbox != behind:
                    return
                await self._records.save(replace(record, lockbox=lockbox))
        except StateError as error:
            log.warning("the password protection of %s was not renewed: %s", account.name, error)
            return
        self.remember(account, lockbox, password, key)
        log.info("the password protection of %s was renewed", account.name)

    async def _derive(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def close(self) -> None:
        await self._upgrades.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
