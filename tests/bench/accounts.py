"""A state folder with as many accounts as you like: real records, as a server writes them, in seconds.

Every account has a key pair of its own and one password, a generated one: HKDF opens those, so that ten thousand
cost no ten thousand derivations of 0.2 s, neither to make nor to log in with.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from emailproxy.oauth.flow import TokenSet
from emailproxy.oauth.records import sealed
from emailproxy.secret import Secret
from emailproxy.store import codec, files, slots
from emailproxy.store.base import Kdf, Lockbox, Record, SlotKdf
from emailproxy.store.bounds import LANES, SALT_OCTETS
from emailproxy.store.folder import StateFolder
from emailproxy.store.names import stem_of
from emailproxy.store.sealing import AccountKey

DOMAIN = "example.org"
LIFE_S = 24 * 3600  # of the access tokens

Token = Callable[[str], str]
"""The access token of an account."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What is needed to log in as any of the accounts."""

    password: Secret
    """Of all of them."""
    domain: str
    count: int

    def name(self, number: int) -> str:
        """From 0 on."""
        return f"user{number:06}@{self.domain}"

    @property
    def names(self) -> list[str]:
        return [self.name(number) for number in range(self.count)]


def fill(state_dir: Path, count: int, *, domain: str = DOMAIN, token: Token = "token-of-{}".format) -> Filled:
    """Makes so many accounts that are signed in; those that are there already stay. Not durable: no fsync."""
    state = StateFolder(state_dir)
    state.prepare(time.time())
    filled = Filled(slots.generate_password(), domain, count)
    for name in filled.names:
        path = state.accounts / f"{stem_of(name)}.ini"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, files.FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(codec.dump_record(record(name, filled.password, token(name))))
    return filled


def record(name: str, password: Secret, token: str) -> Record:
    now_s = int(time.time())
    key = AccountKey(X25519PrivateKey.generate())
    unused = Kdf(os.urandom(SALT_OCTETS), slots.DEFAULT_COST.memory_kib, slots.DEFAULT_COST.iterations, LANES)
    lockbox, _slot = slots.add_slot(
        Lockbox(key.public_key, unused, ()), name, key, password, name=slots.FIRST, now_s=now_s, kdf=SlotKdf.HKDF
    )
    tokens = TokenSet(Secret(token), now_s + LIFE_S, Secret("refresh"), scope="mail")
    return sealed(Record(name, lockbox), tokens, now_s=now_s)
