"""A provider without HTTP, for tests that ask it a hundred thousand times: strict about refresh tokens, often down."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from emailproxy.config.model import Account
from emailproxy.errors import LoginRefused, ProviderRefused, ProviderUnavailable
from emailproxy.oauth.flow import Approval, Grant, OwnPassword, TokenSet
from emailproxy.oauth.records import sealed
from emailproxy.secret import Secret
from emailproxy.store.base import Record
from emailproxy.store.slots import new_lockbox
from tests.oauth.world import ADA, CHEAP, PASSWORD, Process, Turned, World

DOWN = (
    ProviderUnavailable("the provider is busy or down (HTTP 503); try again later"),
    ProviderUnavailable("the provider is busy or down (HTTP 429); try again later", retry_after_s=3),
    ProviderUnavailable("the provider did not answer in time; try again later"),
    ProviderRefused("invalid_client: on demand", code="invalid_client"),
)


@dataclass
class Steady:
    """A `Flow`. Each refresh token is good once; who sends one again has lost it, and is counted."""

    turned: Turned
    life_s: int | None = 3600
    approval: Approval = Approval.PERSON
    refreshable: bool = True
    fault_rate: float = 0.0
    faults: list[LoginRefused] = field(default_factory=list)
    """Answer the next requests."""
    gate: asyncio.Event | None = None
    """While it is there and not set, nothing is answered."""
    calls: int = 0
    lost: int = 0
    busy: int = 0
    busiest: int = 0
    granted_at_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    password: Secret = PASSWORD
    """The mailbox's own."""

    def __post_init__(self) -> None:
        self._present: dict[str, str] = {}
        self._numbers: Counter[str] = Counter()
        self._chances: dict[str, random.Random] = {}

    def grant(self, account: str) -> TokenSet:
        self._numbers[account] += 1
        number = self._numbers[account]
        self.granted_at_s[account].append(self.turned.wall)
        self._present[account] = f"refresh {account} {number}"
        return TokenSet(
            access_token=Secret(f"access-{account}-{number}"),
            expires_at_s=None if self.life_s is None else int(self.turned.wall) + self.life_s,
            refresh_token=Secret(self._present[account]) if self.refreshable else None,
        )

    async def acquire(self, account: Account, grant: Grant | None) -> TokenSet:
        return await self._answered(account, lambda: self._acquired(account, grant))

    async def refresh(self, account: Account, tokens: TokenSet) -> TokenSet:
        return await self._answered(account, lambda: self._refreshed(account, tokens))

    def _acquired(self, account: Account, grant: Grant | None) -> TokenSet:
        if self.approval is Approval.PASSWORD:
            assert isinstance(grant, OwnPassword)
            if grant.password != self.password:
                raise ProviderRefused("invalid_grant: wrong password", code="invalid_grant")
        return self.grant(account.key)

    def _refreshed(self, account: Account, tokens: TokenSet) -> TokenSet:
        if tokens.refresh_token is None and self.approval is Approval.NONE:
            return self.grant(account.key)
        if tokens.refresh_token is None or tokens.refresh_token.reveal() != self._present[account.key]:
            self.lost += 1
            raise ProviderRefused("invalid_grant: not known any more", code="invalid_grant")
        return self.grant(account.key)

    async def _answered(self, account: Account, answer: Callable[[], TokenSet]) -> TokenSet:
        self.calls += 1
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            await (asyncio.sleep(0) if self.gate is None else self.gate.wait())
        finally:
            self.busy -= 1
        chances = self._chances.setdefault(account.key, random.Random(account.key))  # noqa: S311
        if self.faults:
            raise self.faults.pop(0)
        if chances.random() < self.fault_rate:
            raise chances.choice(DOWN)
        return answer()

    def revoke(self, account: str) -> None:
        self._present[account] = "another one"

    async def set_up(self, world: World, process: Process, name: str) -> str:
        """The account has a record with tokens, as after a consent; returns the access token."""
        account = world.account(name)
        now_s = int(self.turned.wall)
        lockbox, _key = new_lockbox(account.key, PASSWORD, now_s=now_s, cost=CHEAP)
        tokens = self.grant(account.key)
        async with process.records.locked(account.key):
            await process.records.save(sealed(Record(account.key, lockbox), tokens, now_s=now_s))
        return tokens.access_token.reveal()

    async def signed_in_again(self, process: Process, name: str) -> None:
        """The account's owner has signed in, in some process."""
        async with process.records.locked(name) as record:
            assert record is not None
            await process.records.save(sealed(record, self.grant(name), now_s=int(self.turned.wall)))


async def unlocked(world: World, provider: Steady, name: str = ADA, **options: Any) -> Process:
    """A process with a keeper, and an account that somebody has logged in to."""
    process = await world.process(keeps=True, listens=False, flow=provider, wait_s=0, **options)
    await provider.set_up(world, process, name)
    await process.login(name)
    return process


async def turned(world: World, process: Process, seconds: float) -> None:
    world.turned.turn(seconds)
    await process.kept()


async def stored(process: Process, name: str = ADA) -> Record:
    record = await process.records.load(name)
    assert record is not None
    return record
