"""Lockboxes at a cost that tests can pay, and records and consents around them."""

from __future__ import annotations

from pathlib import Path

from emailproxy.secret import Secret
from emailproxy.store import sealing, slots
from emailproxy.store.base import Lockbox, Pending, Record
from emailproxy.store.bounds import MIN_MEMORY_KIB
from emailproxy.store.sealing import AccountKey
from emailproxy.store.slots import Cost

CHEAP = Cost(memory_kib=MIN_MEMORY_KIB, iterations=1)
PASSWORD = Secret("correct horse")
NOW = 1_700_000_000
ADA = "ada@example.org"
REPOSITORY = Path(__file__).parents[2]


def made(account: str = ADA, password: Secret = PASSWORD) -> tuple[Lockbox, AccountKey]:
    return slots.new_lockbox(account, password, now_s=NOW, cost=CHEAP)


def lockbox(account: str = ADA, password: Secret = PASSWORD) -> Lockbox:
    return made(account, password)[0]


def flipped(octets: bytes, at: int = -1) -> bytes:
    changed = bytearray(octets)
    changed[at] ^= 1
    return bytes(changed)


def record(account: str = ADA, generation: int = 1) -> Record:
    box = lockbox(account)
    tokens = {
        field: sealing.seal(box.public_key, account, field, generation, Secret(f"{field} {generation}"))
        for field in ("access_token", "refresh_token")
    }
    return Record(account, box, generation, tokens, NOW + 3600, NOW, "mail offline_access")


def pending(state: str, account: str = ADA, *, created_s: int = NOW, lives_s: int = 86_400) -> Pending:
    box = lockbox(account)
    secret = Secret(state)
    return Pending(
        state_hash=sealing.state_hash(secret),
        account=account.casefold(),
        display_name=account,
        created_s=created_s,
        expires_s=created_s + lives_s,
        lockbox=box,
        sealed_state=sealing.seal(box.public_key, account, "state", 0, secret),
        encrypted=sealing.protect(secret, "consent", b"verifier"),
    )
