"""An account's local passwords, as its owner administers them: listed, added, changed and removed, each alone.

All of it works on the account's record under its lock, so that it counts at once for new logins, in this process and
in every other that shares the state folder. Sessions that stand go on.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from emailproxy.errors import AccountUnusable, PasswordsUnchanged
from emailproxy.oauth.keyring import Keyring
from emailproxy.secret import Secret
from emailproxy.store import slots
from emailproxy.store.base import NO_LIMITS, Limits, Lockbox, Record, Slot, SlotKdf, TokenStore
from emailproxy.store.limits import in_words
from emailproxy.store.sealing import AccountKey

RACES = 5  # how often another process may get in between before a change gives up

log = logging.getLogger("emailproxy.oauth")


@dataclass(frozen=True, slots=True)
class NewSlot:
    """A password to add."""

    name: str
    """What a person calls it, e.g. ``scanner``; the account's names are unique without regard to case."""
    password: Secret | None = None
    """None: one is generated."""
    limits: Limits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal did."""

    account: str
    slot: Slot
    record: bool
    """It was the last password: the account's tokens are gone with it, as nobody could have opened them any more."""

    def __str__(self) -> str:
        if not self.record:
            return f"the password {self.slot.name!r} of {self.account} is removed; sessions that stand go on"
        return (
            f"the password {self.slot.name!r} of {self.account} was the last one, and is removed; {LOST}: "
            f"run 'emailproxy authorize {self.account}'"
        )


LOST = "its tokens are gone, and the account must sign in at its provider again"


class Passwords:
    """The local passwords of all accounts of a state folder.

    `account` is always the account's key (`Account.key`). Every method raises `PasswordsUnchanged` where the account
    has no password here yet or the change cannot be made, and StateError where its record cannot be used.
    """

    def __init__(
        self,
        records: TokenStore,
        keyring: Keyring,
        held: Callable[[str], AccountKey | None],
        *,
        discard: Callable[[str], Awaitable[object]],
    ) -> None:
        """`held` gives the key of an account that this process has unlocked, `discard` forgets its pending consent."""
        self._records = records
        self._keyring = keyring
        self._held = held
        self._discard = discard

    async def list(self, account: str) -> tuple[Slot, ...]:
        """The account's passwords, oldest first."""
        return (await self._record(account)).lockbox.slots

    async def add(self, account: str, opener: Secret | None, new: NewSlot) -> tuple[Slot, Secret]:
        """A further password, given or generated; returned with its slot.

        Args:
            opener: one that the account has; None: the key that this process holds since a login.

        Raises:
            WrongPassword, TooManyLogins: the opener opens nothing, or is not tried now.
        """
        password, kdf = _given_or_generated(new.password)
        for _ in range(RACES):
            record = await self._record(account)
            slots.check_new(record.lockbox, account, new.name, new.limits, now_s=self._keyring.now_s())
            key = await self._key(account, record.lockbox, opener)
            lockbox, slot = await self._keyring.add_slot(
                account, record.lockbox, key, password, name=new.name, limits=new.limits, kdf=kdf
            )
            if await self._replaced(account, record.lockbox, lockbox):
                log.info("the password %r of %s was added%s", slot.name, account, _in_words(slot.limits))
                return slot, password
        raise _busy(account)

    async def change(self, account: str, old: Secret, new: Secret | None) -> tuple[Slot, Secret]:
        """Another password, given or generated (None), in place of the old one; its slot keeps its name and limits.

        Raises:
            WrongPassword, TooManyLogins: the old one opens nothing, or is not tried now.
        """
        password, kdf = _given_or_generated(new)
        for _ in range(RACES):
            record = await self._record(account)
            opened = await self._keyring.open(account, record.lockbox, old)
            if password == old:
                raise PasswordsUnchanged(f"the new password of {account} is the old one; choose another")
            lockbox, slot = await self._keyring.change_slot(account, record.lockbox, opened, password, kdf=kdf)
            if await self._replaced(account, record.lockbox, lockbox):
                log.info("the password %r of %s was changed", slot.name, account)
                return slot, password
        raise _busy(account)

    async def remove(self, account: str, slot_name: str, *, force: bool = False) -> Removed:
        """Removes a password. It takes no other: who may write the folder could delete the whole file.

        Args:
            force: remove the last one, too, and with it the account's record and its pending consent.
        """
        for _ in range(RACES):
            record = await self._record(account)
            slot = slots.find_slot(record.lockbox, account, slot_name)
            last = len(record.lockbox.slots) == 1
            if last and not force:
                raise PasswordsUnchanged(
                    f"{slot.name!r} is the last password of {account}: without it {LOST}. "
                    "Add another one first, or remove it with --force"
                )
            if last:
                done = await self._records.remove(account, only=record)
                await self._discard(account)  # it holds a copy of the lockbox, and would bring the password back
            else:
                done = await self._replaced(account, record.lockbox, slots.remove_slot(record.lockbox, slot))
            if done:
                removed = Removed(account, slot, record=last)
                log.info("%s", removed)
                return removed
        raise _busy(account)

    async def _record(self, account: str) -> Record:
        record = await self._records.load(account)
        if record is None:
            raise PasswordsUnchanged(
                f"{account} has no password here yet: its first login sets one, or 'emailproxy authorize {account}'"
            )
        return record

    async def _key(self, account: str, lockbox: Lockbox, opener: Secret | None) -> AccountKey:
        if opener is not None:
            return (await self._keyring.open(account, lockbox, opener))[0]
        key = self._held(account)
        if key is None or key.public_key != lockbox.public_key:
            raise PasswordsUnchanged(
                f"{account} is locked here: give one of its passwords, log in to it once through the running server, "
                f"or sign it in anew with --consent"
            )
        return key

    async def _replaced(self, account: str, seen: Lockbox, new: Lockbox) -> bool:
        """Stores the new lockbox, unless the record has another one by now than was seen."""
        async with self._records.locked(account) as record:
            if record is None or record.lockbox != seen:
                return False
            await self._records.save(replace(record, lockbox=new))
        return True


def _given_or_generated(password: Secret | None) -> tuple[Secret, SlotKdf]:
    """A generated password is beyond guessing, and its derivation may be quick; a given one is not trusted to be."""
    return (slots.generate_password(), SlotKdf.HKDF) if password is None else (password, SlotKdf.ARGON2ID)


def _in_words(limits: Limits) -> str:
    text = in_words(limits)
    return f", {text}" if text else ""


def _busy(account: str) -> AccountUnusable:
    return AccountUnusable(f"several processes change the state of {account} at once; try again")
