"""What `check` finds: one link of the chain, how it is, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from emailproxy.errors import Kind, LoginRefused

DAY_S = 24 * 3600
SOON_S = 21 * DAY_S  # before its end a certificate is warned of: whoever renews it needs a day, and holidays


class Link(StrEnum):
    """The links of the chain, in order."""

    CONFIGURATION = "configuration"
    DNS = "dns"
    TCP = "tcp"
    TLS = "tls"
    ENDPOINT = "endpoint"
    CREDENTIAL = "credential"
    """What the application proves itself with: a certificate."""
    TOKEN = "token"  # noqa: S105 - a name, not a secret
    LOGIN = "login"


class Grade(StrEnum):
    OK = "ok"
    WARNING = "warning"
    SKIPPED = "skipped"
    """Not checked; the text says why."""
    NEEDS_PERSON = "needs person"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One link of the chain."""

    link: Link
    about: str
    """Which server, endpoint or account."""
    grade: Grade
    text: str
    action: str = ""
    """What to do, where something is to be done."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """For machines; as JSON has them."""

    @property
    def breaks(self) -> bool:
        """The chain ends here."""
        return self.grade in (Grade.FAILED, Grade.NEEDS_PERSON)

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in ("", {})}


def refused(link: Link, about: str, error: LoginRefused) -> Finding:
    """A login that does not go ahead; the error says what to do."""
    grade = Grade.NEEDS_PERSON if error.kind is Kind.CONSENT_NEEDED else Grade.FAILED
    return Finding(link, about, grade, str(error), facts={"kind": error.kind.value})


def span(seconds: float) -> str:
    """A length of time as people say it, in its largest unit."""
    for unit, length_s in (("day", DAY_S), ("hour", 3600), ("minute", 60)):
        count = int(abs(seconds) // length_s)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"
