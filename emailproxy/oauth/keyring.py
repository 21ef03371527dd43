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
from emailproxy.errors import PasswordNotPermitted, StateError, TooManyLogins, WrongPassword
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.flights import Flights
from emailproxy.oauth.lastuse import LastUses
from emailproxy.oauth.throttle import Rank, Throttle, site_of
from emailproxy.oauth.turns import Turns
from emailproxy.secret import Secret
from emailproxy.store import slots
from emailproxy.store.base import NO_LIMITS, Limits, Lockbox, Record, Slot, SlotKdf, TokenStore
from emailproxy.store.limits import why_not
from emailproxy.store.sealing import AccountKey
from emailproxy.store.warm import Opened, WarmCache
from emailproxy.wire.events import LOCAL, Visit

KDF_THREADS = 2  # 64 MiB each: more at once would let wrong passwords fill the memory

log = logging.getLogger("emailproxy.oauth")

T = TypeVar("T")


class Keyring:
    """What the passwords of this process open."""

    def __init__(self, records: TokenStore, *, clock: Clock, cost: slots.Cost = slots.DEFAULT_COST) -> None:
        self._records = records
        self._clock = clock
        self._cost = cost
        self._warm = WarmCache()
        self._throttle = Throttle(clock.monotonic_s)
        self._pool = ThreadPoolExecutor(KDF_THREADS, thread_name_prefix="kdf")
        self._turns = Turns(KDF_THREADS)
        self._upgrades: Flights[None] = Flights()
        self._uses = LastUses(records, clock=clock)

    # ---- logins

    def find(self, account: Account, lockbox: Lockbox, password: Secret, visit: Visit = LOCAL) -> AccountKey | None:
        """The key, where this password opened this lockbox before in this process, and its slot permits this visit."""
        found = self._warm.find(account.key, lockbox, password)
        if found is None or self._why_not(found[1], visit):
            return None
        self._note(account.key, found[1], visit)
        return found[0]

    def check(self, account: Account, password: Secret, visit: Visit) -> None:
        """Refuses a login that `unlock` would refuse, before the account's file is read: a flood of guesses costs
        microseconds each.

        Raises:
            TooManyLogins: too many were wrong, and this one is not known to be right.
        """
        if not (slots.looks_generated(password) or self._warm.may_be_warm(account.key, password)):
            self._throttle.check(account.key, visit.address)

    async def unlock(
        self, account: Account, lockbox: Lockbox, password: Secret, visit: Visit = LOCAL, *, counts: bool = True
    ) -> AccountKey:
        """The account's key.

        Args:
            counts: whether one that opens no slot is a wrong password; not yet, where the provider is asked next.

        Raises:
            WrongPassword: the password opens no slot; nothing is changed.
            PasswordNotPermitted: it opens one whose limits do not permit this visit.
            TooManyLogins: too many were wrong, or too many wait; nothing was derived.
            StateDamaged: the lockbox cannot be used.
        """
        return (await self.open(account.key, lockbox, password, visit, counts=counts))[0]

    async def open(
        self, account: str, lockbox: Lockbox, password: Secret, visit: Visit = LOCAL, *, counts: bool = True
    ) -> Opened:
        """As `unlock`, by the account's key; with the slot that the password opened."""
        found = self._warm.find(account, lockbox, password)
        if found is None:
            found = slots.open_generated(lockbox, account, password)
            if found is None:
                found = await self._stretched(account, lockbox, password, visit, counts=counts)
            self._warm.remember(account, lockbox, password, *found)
        why = self._why_not(found[1], visit)
        if why:
            raise PasswordNotPermitted(
                f"the password {found[1].name!r} of {account} {why}; use another of its passwords"
            )
        self._note(account, found[1], visit)
        return found

    async def _stretched(
        self, account: str, lockbox: Lockbox, password: Secret, visit: Visit, *, counts: bool
    ) -> Opened:
        """The same through Argon2id. What was wrong before is so at once, and is no further guess: a mail program
        with an old password must not shut out the one beside it that has the new one."""
        site = site_of(visit.address)
        if self._warm.is_wrong(account, lockbox, password, site):
            raise slots.wrong_password(account)
        try:
            return await self._tried(account, visit, lambda: slots.unlock(lockbox, account, password), counts=counts)
        except WrongPassword:
            self._warm.remember_wrong(account, lockbox, password, site)
            raise

    async def try_password(self, account: Account, visit: Visit, work: Callable[[], T], *, counts: bool = True) -> T:
        """What `work` makes of a password that no slot is about: in the threads, the order and the count of `unlock`.

        Args:
            work: blocks for a derivation, and raises WrongPassword where the password is wrong.

        Raises:
            TooManyLogins: too many were wrong, or too many wait; nothing was derived.
        """
        return await self._tried(account.key, visit, work, counts=counts)

    async def _tried(self, account: str, visit: Visit, work: Callable[[], T], *, counts: bool) -> T:
        address = visit.address
        self._throttle.check(account, address)
        async with self._turns.turn(account, site_of(address), lambda: self._throttle.rank(account, address)):
            self._throttle.check(account, address)  # those who came before us may have used it up
            try:
                done = await self._derive(work)
            except WrongPassword:
                if counts:
                    self._throttle.failed(account, address)
                raise
        self._throttle.succeeded(account, address)
        return done

    def _note(self, account: str, slot: Slot, visit: Visit) -> None:
        if visit.protocol:
            self._uses.note(account, slot)

    def _why_not(self, slot: Slot, visit: Visit) -> str:
        if slot.limits == NO_LIMITS:
            return ""
        return why_not(slot.limits, visit.protocol, visit.address, self._clock.wall_s())

    @contextmanager
    def guess(self, account: Account, address: str) -> Iterator[None]:
        """A password that somebody else is asked about: it counts as wrong until it turns out not to be, so that
        guesses in parallel are counted, too. One that is wrong raises WrongPassword.

        Raises:
            TooManyLogins: too many were wrong; nobody is to be asked.
        """
        self._throttle.check(account.key, address)
        self._throttle.failed(account.key, address)
        try:
            yield
        except WrongPassword:
            raise
        except BaseException:
            self._throttle.take_back(account.key, address)
            raise
        self._throttle.succeeded(account.key, address)

    # ---- changes

    async def new_lockbox(
        self, account: Account, password: Secret, address: str = "", *, slot_name: str = slots.FIRST
    ) -> tuple[Lockbox, AccountKey]:
        """A new key pair with this password as its first slot. It is nobody's until it is stored.

        Raises:
            TooManyLogins: this address has begun too many accounts, or too many wait; nothing was derived.
        """
        self._throttle.begin(address)
        now_s, name = self._clock.now_s(), account.key
        async with self._turns.turn(name, site_of(address), lambda: self._throttle.rank(name, address)):
            return await self._derive(
                lambda: slots.new_lockbox(name, password, name=slot_name, now_s=now_s, cost=self._cost)
            )

    async def add_slot(
        self,
        account: str,
        lockbox: Lockbox,
        key: AccountKey,
        password: Secret,
        *,
        name: str,
        limits: Limits = NO_LIMITS,
        kdf: SlotKdf = SlotKdf.ARGON2ID,
    ) -> tuple[Lockbox, Slot]:
        """The lockbox with a further slot, which is not stored yet; raises what `slots.add_slot` does."""
        now_s = self._clock.now_s()
        return await self._in_turn(
            account,
            lambda: slots.add_slot(
                lockbox, account, key, password, name=name, limits=limits, now_s=now_s, kdf=kdf, cost=self._cost
            ),
        )

    async def change_slot(
        self,
        account: str,
        lockbox: Lockbox,
        opened: Opened,
        password: Secret,
        *,
        kdf: SlotKdf = SlotKdf.ARGON2ID,
    ) -> tuple[Lockbox, Slot]:
        """The lockbox with another password in a slot, not stored yet; raises what `slots.change_slot` does."""
        (key, slot), now_s = opened, self._clock.now_s()
        return await self._in_turn(
            account,
            lambda: slots.change_slot(lockbox, account, key, slot, password, now_s=now_s, kdf=kdf, cost=self._cost),
        )

    def now_s(self) -> int:
        return self._clock.now_s()

    def remember(self, account: Account, lockbox: Lockbox, password: Secret, key: AccountKey) -> None:
        """The password is that of the lockbox's only slot."""
        (slot,) = lockbox.slots
        self._warm.remember(account.key, lockbox, password, key, slot)

    # ---- upgrades

    def upgrade_if_behind(self, account: Account, record: Record, password: Secret, key: AccountKey) -> None:
        """Raises the stored cost to today's, beside the login that gave the password."""
        found = self._warm.find(account.key, record.lockbox, password)
        if found is not None and slots.needs_upgrade(record.lockbox, found[1], self._cost):
            self._upgrades.start(account.key, lambda: self._upgrade(account, record.lockbox, password, key))

    async def _upgrade(self, account: Account, behind: Lockbox, password: Secret, key: AccountKey) -> None:
        try:
            lockbox = await self._in_turn(
                account.key, lambda: slots.upgrade(behind, account.key, key, password, cost=self._cost), Rank.IDLE
            )
            async with self._records.locked(account.key) as record:
                if record is None or record.lockbox != behind:
                    return
                await self._records.save(replace(record, lockbox=lockbox))
        except TooManyLogins:
            return  # a later login is as good
        except StateError as error:
            log.warning("the password protection of %s was not renewed: %s", account.name, error)
            return
        self._warm.remember(account.key, lockbox, password, key, slots.stretched_slots(lockbox)[0])
        log.info("the password protection of %s was renewed", account.name)

    # ---- threads

    async def _in_turn(self, account: str, work: Callable[[], T], rank: Rank = Rank.CLEAN) -> T:
        async with self._turns.turn(account, "", lambda: rank):
            return await self._derive(work)

    async def _derive(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def close(self) -> None:
        await asyncio.gather(self._upgrades.close(), self._uses.close())
        self._pool.shutdown(wait=False, cancel_futures=True)
