"""A provider that can be put in a bad mood, and whose tokens live as long as each account is told."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from emailproxy.demo.ledger import Family
from tests.fakes.provider import FakeProvider, Fault


class Dealer(FakeProvider):
    """The embedded provider. Its access tokens work for an hour, whatever it says of them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.told_life_s: dict[str, int] = {}
        """By account: what `expires_in` says. One second makes the next login ask for another token."""
        self.asked: Counter[str] = Counter()
        """Requests to renew tokens, whatever was answered, by account."""
        self.dealt: Counter[str] = Counter()
        """How often each account was granted tokens."""
        self.dealt_at_s: dict[str, float] = {}
        """By account: when it was granted tokens last (monotonic)."""
        self._mood: Callable[[], Fault] | None = None

    @contextmanager
    def mood(self, fault: Callable[[], Fault]) -> Iterator[None]:
        """Meanwhile, each request to the token endpoint meets such a fault."""
        self._mood = fault
        try:
            yield
        finally:
            self._mood = None

    async def _token_endpoint(self, request: web.Request) -> web.StreamResponse:
        family = self._ledger._families.get(str((await request.post()).get("refresh_token")))
        if family is not None:
            self.asked[family.account] += 1
        if self._mood is not None:
            self.next(self._mood())
        return await super()._token_endpoint(request)

    def _user_tokens(self, family: Family) -> dict[str, Any]:
        self.dealt[family.account] += 1
        self.dealt_at_s[family.account] = time.monotonic()
        tokens: Mapping[str, Any] = super()._user_tokens(family)
        return {**tokens, "expires_in": self.told_life_s.get(family.account, tokens["expires_in"])}

    def disown(self, account: str) -> None:
        """The account's refresh tokens are void from now on, as when its owner takes the permission back."""
        for family in self._ledger._families.values():
            if family.account == account:
                family.revoked = True
