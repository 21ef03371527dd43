"""The accounts that the bench makes are such as a server opens."""

from __future__ import annotations

from pathlib import Path

from emailproxy.oauth.records import opened
from emailproxy.store import slots
from emailproxy.store.ini import IniStore
from tests.bench.accounts import fill


async def test_every_account_opens_with_the_password(tmp_path: Path) -> None:
    filled = fill(tmp_path / "state", 3, token=lambda name: f"token-of-{name}")
    store = IniStore(tmp_path / "state")
    assert await store.accounts() == filled.names
    for name in filled.names:
        record = await store.load(name)
        assert record is not None
        key, _slot = slots.unlock(record.lockbox, name, filled.password)
        tokens = opened(record, key)
        assert tokens is not None
        assert tokens.access_token.reveal() == f"token-of-{name}"
    store.close()
