"""A state folder without a server: what commands do to it, whether one runs beside them or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from emailproxy.oauth.clock import Clock
from emailproxy.oauth.keyring import Keyring
from emailproxy.oauth.passwords import Passwords
from emailproxy.store.ini import IniStore
from emailproxy.store.pending import IniPendingStore


@asynccontextmanager
async def passwords_of(state_dir: Path) -> AsyncIterator[Passwords]:
    """The local passwords of a folder's accounts, none of them unlocked."""
    records, pending = IniStore(state_dir), IniPendingStore(state_dir)
    keyring = Keyring(records, clock=Clock())
    try:
        yield Passwords(records, keyring, lambda _: None, discard=pending.discard)
    finally:
        await keyring.close()
        pending.close()
        records.close()


async def forget(state_dir: Path, account: str) -> bool:
    """Removes an account's record and its pending consent. Whether there was anything to remove.

    Args:
        account: its key.

    Raises:
        StateError: it cannot be removed.
    """
    records, pending = IniStore(state_dir), IniPendingStore(state_dir)
    try:
        removed = await records.remove(account)
        return await pending.discard(account) or removed  # last: a login meanwhile may have begun one anew
    finally:
        pending.close()
        records.close()
