"""In which state an account is, as a type that cannot be wrong: each state has what belongs to it, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from emailproxy.oauth.lifetimes import MARGIN_S
from emailproxy.oauth.records import ACCESS
from emailproxy.store.base import Pending, Record


@dataclass(frozen=True, slots=True)
class Absent:
    """It has no tokens: its first login gets some, or begins a sign-in."""

    name: ClassVar[str] = "absent"


@dataclass(frozen=True, slots=True)
class ConsentPending:
    """A person is asked to sign in."""

    since_s: int
    expires_s: int
    """When the link ends, seconds since the epoch; so are all times here."""
    name: ClassVar[str] = "consent pending"


@dataclass(frozen=True, slots=True)
class Live:
    """It has tokens. An access token that has ended is renewed by the next login, if not before."""

    expires_at_s: int | None
    """When the access token ends; None where the provider does not say."""
    obtained_at_s: int | None
    name: ClassVar[str] = "live"


@dataclass(frozen=True, slots=True)
class Refreshing:
    """Its access token is due, and somebody is at it."""

    expires_at_s: int
    name: ClassVar[str] = "refreshing"


@dataclass(frozen=True, slots=True)
class NeedsSignIn:
    """The provider knows its refresh token no more: the next login begins a sign-in."""

    reason: str
    name: ClassVar[str] = "needs sign-in"


State = Absent | ConsentPending | Live | Refreshing | NeedsSignIn


def state_of(
    record: Record | None, pending: Pending | None, *, locked: bool, now_s: float, margin_s: float = MARGIN_S
) -> State:
    """The state that a store's two files and its lock say.

    Args:
        locked: somebody holds the account's lock, to change its record.
        margin_s: so long before its end an access token is renewed.
    """
    if pending is not None and pending.expires_s > now_s:
        return ConsentPending(pending.created_s, pending.expires_s)
    if record is None or ACCESS not in record.sealed:
        return Absent()
    if record.needs_sign_in:
        return NeedsSignIn(record.last_error)
    if locked and record.expires_at_s is not None and now_s >= due_s(record, record.expires_at_s, margin_s):
        return Refreshing(record.expires_at_s)
    return Live(record.expires_at_s, record.obtained_at_s)


def due_s(record: Record, expires_at_s: int, margin_s: float) -> float:
    """From when on the access token is to be renewed: before its end by the margin, which is half its life at most."""
    if record.obtained_at_s is None:
        return expires_at_s - margin_s
    return expires_at_s - max(0.0, min(margin_s, (expires_at_s - record.obtained_at_s) / 2))
