"""Counts the logins that are refused, on their way to whoever decides."""

from __future__ import annotations

from collections import Counter

from emailproxy.config.model import Route
from emailproxy.errors import LoginRefused
from emailproxy.net.tokens import TokenSource
from emailproxy.wire.events import Advice, Credential, Login, Visit


class Tally:
    """A `TokenSource` around another one."""

    def __init__(self, source: TokenSource, refusals: Counter[str]) -> None:
        """`refusals` counts by reason; listeners share it."""
        self._source = source
        self._refusals = refusals

    def route(self, login: Login, visit: Visit) -> Route:
        return self._source.route(login, visit)

    def at_once(self, login: Login, visit: Visit) -> Credential | None:
        return self._source.at_once(login, visit)

    async def token(self, login: Login, visit: Visit, rejected: str | None = None) -> Credential:
        return await self._source.token(login, visit, rejected)

    def is_settled(self, login: Login, visit: Visit) -> bool:
        return self._source.is_settled(login, visit)

    async def accepted(self, login: Login, visit: Visit) -> None:
        await self._source.accepted(login, visit)

    def refused(self, login: Login, visit: Visit, error: LoginRefused) -> None:
        self._refusals[error.kind.value] += 1
        self._source.refused(login, visit, error)

    def advise(self, text: str) -> Advice | None:
        return self._source.advise(text)
