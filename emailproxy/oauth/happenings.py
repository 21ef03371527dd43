"""What happens to accounts that somebody outside may want to know of; hooks are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Event(StrEnum):
    """The values are the configuration's keys without ``on_``."""

    CONSENT_REQUIRED = "consent_required"
    """A sign-in was begun, and waits for a person."""
    SIGN_IN_NEEDED = "sign_in_needed"
    """The provider does not know the refresh token any more: the next login begins a sign-in."""
    TOKEN_REFRESHED = "token_refreshed"  # noqa: S105 - a name, not a secret
    LOGIN_FAILED = "login_failed"
    """A mail client's login was refused, for whatever reason."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One event. Texts are clean lines without secrets; empty ones are left out of what hooks get."""

    event: Event
    account: str
    reason: str = ""
    """What happened and what to do, as the log says it."""
    link: str = ""
    """The short link to sign in with, or a device flow's verification_uri."""
    url: str = ""
    """The provider's page."""
    user_code: str = ""
    """What to type there, for a device flow."""
    expires_at_s: int | None = None
    """When the new access token, or the sign-in's link, ends; seconds since the epoch."""
    protocol: str = ""
    address: str = ""
    """Of a failed login: the client's."""


Notify = Callable[[Happening], None]
"""Takes note, and returns at once."""


def nobody(happening: Happening) -> None:
    """A `Notify` that tells nobody."""
