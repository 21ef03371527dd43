"""What is known of the accounts of a state folder, as `accounts list` and `status` show it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace

from emailproxy.oauth.advice import advise
from emailproxy.oauth.clock import rfc3339
from emailproxy.oauth.lifetimes import MARGIN_S
from emailproxy.oauth.states import ConsentPending, state_of
from emailproxy.store.base import Pending, Slot
from emailproxy.store.ini import IniStore, Seen
from emailproxy.store.limits import in_words
from emailproxy.store.pending import IniPendingStore
from emailproxy.wire.events import Advice

SLICE = 16  # accounts that are looked at in one go: some 8 ms, after which logins come first


@dataclass(frozen=True, slots=True)
class Line:
    """One account as the list shows it. Times are in UTC (RFC 3339), None where there is none or nobody told."""

    account: str
    state: str
    token_expires: str | None = None
    token_obtained: str | None = None
    consent_since: str | None = None
    consent_expires: str | None = None
    passwords: int = 0
    last_error: str = ""
    advice: Advice | None = None
    """What is known about the last error."""


async def account_lines(
    records: IniStore, pending: IniPendingStore, configured: Collection[str], margin_s: float = MARGIN_S
) -> AsyncIterator[Line]:
    """All accounts that are configured, have a record, or wait for a person, by name.

    Raises:
        StateError: the folder cannot be used; of one account's file its line tells.
    """
    waiting = {consent.account: consent for consent in await pending.waiting()}
    names = sorted({*await records.accounts(), *waiting, *configured})
    for start in range(0, len(names), SLICE):
        some = names[start : start + SLICE]
        for name, seen in zip(some, await records.survey(some), strict=True):
            yield _line(name, seen, waiting.get(name), margin_s)


def _line(name: str, seen: Seen, consent: Pending | None, margin_s: float) -> Line:
    if seen.error is not None:
        return Line(name, "unusable", last_error=str(seen.error))
    record = seen.record
    state = state_of(record, consent, locked=seen.is_locked, now_s=time.time(), margin_s=margin_s)
    line = Line(name, state.name)
    if isinstance(state, ConsentPending):
        line = replace(line, consent_since=_utc(state.since_s), consent_expires=_utc(state.expires_s))
    if record is None:
        return line
    return replace(
        line,
        token_expires=_utc(record.expires_at_s),
        token_obtained=_utc(record.obtained_at_s),
        passwords=len(record.lockbox.slots),
        last_error=record.last_error,
        advice=advise(record.last_error) if record.last_error else None,
    )


def slot_facts(slot: Slot) -> dict[str, object]:
    """What may be known of a password: everything but itself."""
    limits = slot.limits
    return {
        "name": slot.name,
        "created": _utc(slot.created_s),
        "last_used": _utc(slot.last_used_s),
        "limits": in_words(limits),
        "protocols": list(limits.protocols),
        "networks": list(limits.networks),
        "expires": _utc(limits.expires_s),
        "expired": limits.expires_s is not None and limits.expires_s <= time.time(),
    }


def _utc(moment_s: int | None) -> str | None:
    return None if moment_s is None else rfc3339(moment_s)
