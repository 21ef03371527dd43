"""Tokens that another program kept in the clear come under a local password, in our state folder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from emailproxy.config import catchall
from emailproxy.config.importing import ImportedAccount
from emailproxy.config.model import Config
from emailproxy.errors import LoginRefused, StateError
from emailproxy.oauth.flow import TokenSet
from emailproxy.oauth.records import sealed
from emailproxy.secret import Secret
from emailproxy.store import slots
from emailproxy.store.base import Record
from emailproxy.store.ini import IniStore


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of one account's tokens."""

    stored: bool
    why: str = ""
    """Why they were not stored."""
    password: Secret | None = None
    """The local password that was generated for them."""


PRESENT = "the account has tokens and a local password here already; --force replaces both"


async def store(
    config: Config, state_dir: Path, accounts: Iterable[ImportedAccount], password: Secret | None, *, force: bool
) -> dict[str, Kept]:
    """Seals each account's tokens; what became of them, by the account's name.

    Args:
        password: the local password of all of them; None: each gets one of its own, generated.
        force: replace tokens and passwords that accounts have here already.
    """
    records = IniStore(state_dir)
    try:
        return {found.name: await _store(records, _key(config, found), found, password, force) for found in accounts}
    finally:
        records.close()


async def foresee(
    config: Config, state_dir: Path, accounts: Iterable[ImportedAccount], *, force: bool
) -> dict[str, Kept]:
    """What `store` would do."""
    records = IniStore(state_dir)
    try:
        return {found.name: await _foresee(records, _key(config, found), force) for found in accounts}
    finally:
        records.close()


async def _foresee(records: IniStore, key: str, force: bool) -> Kept:
    try:
        record = await records.load(key)
    except StateError as error:
        return Kept(False, str(error))
    return Kept(True) if record is None or force else Kept(False, PRESENT)


async def _store(records: IniStore, key: str, account: ImportedAccount, password: Secret | None, force: bool) -> Kept:
    chosen = password or slots.generate_password()
    now_s = int(time.time())
    try:
        async with records.locked(key) as record:
            if record is not None and not force:
                return Kept(False, PRESENT)
            lockbox, _ = await asyncio.to_thread(slots.new_lockbox, key, chosen, now_s=now_s)
            new = Record(key, lockbox, generation=0 if record is None else record.generation)
            await records.save(sealed(new, _tokens(account, now_s), now_s=now_s))
    except StateError as error:
        return Kept(False, str(error))
    return Kept(True, password=None if password else chosen)


def _tokens(account: ImportedAccount, now_s: int) -> TokenSet:
    """The tokens as a provider's answer would have them; one that ends now, where there is only a refresh token."""
    if account.access_token is None:
        return TokenSet(Secret(""), now_s, account.refresh_token)
    return TokenSet(account.access_token, account.expires_at_s or now_s, account.refresh_token)


def _key(config: Config, account: ImportedAccount) -> str:
    """The name by which the account's state is kept, unfinished as its section may be."""
    try:
        return catchall.resolve(config, account.name).key
    except LoginRefused:
        return account.name.casefold()
