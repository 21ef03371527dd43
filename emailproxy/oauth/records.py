"""Tokens in and out of an account's record."""

from __future__ import annotations

from dataclasses import replace

from emailproxy.oauth.flow import TokenSet
from emailproxy.store import sealing
from emailproxy.store.base import Record
from emailproxy.store.sealing import AccountKey

ACCESS, REFRESH = "access_token", "refresh_token"  # the fields' names in `Record.sealed`


def sealed(record: Record, tokens: TokenSet, *, now_s: int) -> Record:
    """The record with these tokens in place of the old ones; needs no key."""
    generation = record.generation + 1
    values = {ACCESS: tokens.access_token, REFRESH: tokens.refresh_token}
    return replace(
        record,
        generation=generation,
        sealed={
            name: sealing.seal(record.lockbox.public_key, record.account, name, generation, value)
            for name, value in values.items()
            if value is not None
        },
        expires_at_s=tokens.expires_at_s,
        obtained_at_s=now_s,
        scope=tokens.scope,
        needs_sign_in=False,
        last_error="",
    )


def opened(record: Record, key: AccountKey) -> TokenSet | None:
    """The record's tokens, or None where it has none yet.

    Raises:
        StateDamaged: they were sealed for another account, generation or key.
    """
    if ACCESS not in record.sealed:
        return None
    values = {
        name: key.open(record.account, name, record.generation, value)
        for name, value in record.sealed.items()
        if name in (ACCESS, REFRESH)
    }
    return TokenSet(
        access_token=values[ACCESS],
        expires_at_s=record.expires_at_s,
        refresh_token=values.get(REFRESH),
        scope=record.scope,
    )
