"""Tokens, and a client secret, in and out of an account's record.

Tokens are bound to the record's generation, so that no old ones can be put back beside new ones. The client secret is
not: whoever renews tokens without the key carries it over as it is.
"""

from __future__ import annotations

from dataclasses import replace

from emailproxy.oauth.flow import TokenSet
from emailproxy.secret import Secret
from emailproxy.store import sealing
from emailproxy.store.base import Record
from emailproxy.store.sealing import AccountKey

ACCESS, REFRESH = "access_token", "refresh_token"  # the fields' names in `Record.sealed`
CLIENT_SECRET, SECRET_GENERATION = "client_secret", 0  # what the client secret is sealed as


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
        }
        | sealed_secret(record),
        expires_at_s=tokens.expires_at_s,
        obtained_at_s=now_s,
        scope=tokens.scope,
        needs_sign_in=False,
        last_error="",
    )


def sealed_secret(record: Record) -> dict[str, bytes]:
    """The client secret as it is sealed; empty where the record has none."""
    return {name: value for name, value in record.sealed.items() if name == CLIENT_SECRET}


def with_client_secret(record: Record, secret: Secret) -> Record:
    """The record with this client secret; needs no key."""
    value = sealing.seal(record.lockbox.public_key, record.account, CLIENT_SECRET, SECRET_GENERATION, secret)
    return replace(record, sealed={**record.sealed, CLIENT_SECRET: value})


def client_secret_of(record: Record, key: AccountKey) -> Secret | None:
    """The record's client secret, if it has one.

    Raises:
        StateDamaged: it was sealed for another account or key.
    """
    value = record.sealed.get(CLIENT_SECRET)
    return None if value is None else key.open(record.account, CLIENT_SECRET, SECRET_GENERATION, value)


def with_secret_of(record: Record, other: Record) -> Record:
    """The record with the other's client secret, or with none."""
    tokens = {name: value for name, value in record.sealed.items() if name != CLIENT_SECRET}
    return replace(record, sealed=tokens | sealed_secret(other))


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
