"""Passwords that this process knows: right ones, so that only the first login of each pays a derivation, and wrong."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from emailproxy.secret import Secret
from emailproxy.store.base import Kdf, Lockbox, Slot
from emailproxy.store.bounds import MAX_SLOTS
from emailproxy.store.sealing import KEY_OCTETS, AccountKey, context

MAX_WARM_ACCOUNTS = 10_000  # beyond, the one used longest ago pays the derivation again
MAX_WARM_PASSWORDS = MAX_SLOTS
MAX_WRONG = 4096  # passwords known as wrong, 32 octets each; strangers choose them, so the oldest make room

Opened = tuple[AccountKey, Slot]


class _Entry(NamedTuple):
    key: AccountKey
    slot: Slot


@dataclass(slots=True)
class _Warm:
    public_key: bytes
    kdf: Kdf
    entries: dict[bytes, _Entry] = field(default_factory=dict)

    def fits(self, lockbox: Lockbox) -> bool:
        return self.public_key == lockbox.public_key and self.kdf == lockbox.kdf


class WarmCache:
    """Passwords that were tried in this process.

    It keeps no password, but HMAC-SHA256 of it under a key that lives as long as the process. What it knows of an
    account ends with the account's key pair and salt, and what it knows of a password with its key slot: a login
    after a change is a cold one. For one thread.
    """

    def __init__(self) -> None:
        self._process_key = secrets.token_bytes(KEY_OCTETS)
        self._accounts: OrderedDict[str, _Warm] = OrderedDict()
        self._wrong: OrderedDict[bytes, None] = OrderedDict()

    def remember(self, account: str, lockbox: Lockbox, password: Secret, key: AccountKey, slot: Slot) -> None:
        """The password opened this slot of the lockbox and gave this key."""
        name = account.casefold()
        warm = self._accounts.get(name)
        if warm is None or not warm.fits(lockbox):
            warm = self._accounts[name] = _Warm(lockbox.public_key, lockbox.kdf)
        self._accounts.move_to_end(name)
        warm.entries[self._tag(name, lockbox, password)] = _Entry(key, slot)
        if len(warm.entries) > MAX_WARM_PASSWORDS:
            del warm.entries[next(iter(warm.entries))]
        if len(self._accounts) > MAX_WARM_ACCOUNTS:
            self._accounts.popitem(last=False)

    def find(self, account: str, lockbox: Lockbox, password: Secret) -> Opened | None:
        """The key and the slot as it is now, where this password opened it before. Compares in constant time."""
        name = account.casefold()
        warm = self._accounts.get(name)
        if warm is None or not warm.fits(lockbox):
            return None
        self._accounts.move_to_end(name)
        entry = self._entry(warm, self._tag(name, lockbox, password))
        if entry is None:
            return None
        return next(((entry.key, slot) for slot in lockbox.slots if slot == entry.slot), None)

    def may_be_warm(self, account: str, password: Secret) -> bool:
        """Whether this password opened the account's lockbox when it was last seen, whatever has become of it."""
        name = account.casefold()
        warm = self._accounts.get(name)
        if warm is None:
            return False
        return self._entry(warm, self._tag(name, Lockbox(warm.public_key, warm.kdf, ()), password)) is not None

    @staticmethod
    def _entry(warm: _Warm, tag: bytes) -> _Entry | None:
        found = None
        for known, entry in warm.entries.items():
            if hmac.compare_digest(known, tag):
                found = entry
        return found

    def _tag(self, name: str, lockbox: Lockbox, password: Secret) -> bytes:
        return self._digest(name, lockbox.kdf.salt, password.reveal())

    # ---- wrong ones

    def remember_wrong(self, account: str, lockbox: Lockbox, password: Secret, whose: str) -> None:
        """The password opens no slot of this lockbox. Others than `whose` do not profit: it may be a near miss."""
        tag = self._wrong_tag(account, lockbox, password, whose)
        self._wrong[tag] = None
        self._wrong.move_to_end(tag)
        if len(self._wrong) > MAX_WRONG:
            self._wrong.popitem(last=False)

    def is_wrong(self, account: str, lockbox: Lockbox, password: Secret, whose: str) -> bool:
        return self._wrong_tag(account, lockbox, password, whose) in self._wrong

    def _wrong_tag(self, account: str, lockbox: Lockbox, password: Secret, whose: str) -> bytes:
        slots = (slot.commitment for slot in lockbox.slots)
        return self._digest(account.casefold(), whose, lockbox.kdf.salt, *slots, password.reveal())

    def _digest(self, *parts: str | bytes) -> bytes:
        return hmac.digest(self._process_key, context(*parts), "sha256")
