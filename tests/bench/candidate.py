"""One of those that are measured side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.bench.clients import Account, Endpoint
from tests.bench.processes import Tree

DIRECT = "no proxy"
EMAILPROXY = "emailproxy"
PREWARMED = "emailproxy, prewarm"
STUNNEL = "stunnel"
DOVECOT = "Dovecot"
PYPI = "PyPI's emailproxy"
PROXIES = (EMAILPROXY, STUNNEL, DOVECOT, PYPI)
EVERYONE = (DIRECT, *PROXIES)
OURS = frozenset({DIRECT, EMAILPROXY, PREWARMED})
"""Whose failures are the bench's: without any proxy, it is its own servers that fail."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A running one, signed in where it can be, and where and how its clients log in. None: it has no such port."""

    name: str
    kind: Literal["C", "Python", "none"]
    account: Account
    imap: Endpoint | None
    pop: Endpoint | None
    smtp: Endpoint | None
    pid: int | None = None
    slow: bool = False
    """Derives a key at every login: measured with fewer of them."""

    @property
    def tree(self) -> Tree | None:
        """Its processes; None where there is no proxy."""
        return None if self.pid is None else Tree(self.pid)
