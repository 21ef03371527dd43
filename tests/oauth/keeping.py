"""Processes that keep one account's token alive, on a clock that runs fast: ``python -m tests.oauth.keeping FOLDER
TOKEN_URL STARTED``."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from emailproxy.config.model import Account
from emailproxy.oauth.broker import BrokerSettings, TokenBroker
from emailproxy.oauth.clock import Clock, wait
from emailproxy.oauth.consent import Consents
from emailproxy.oauth.generic import flows
from emailproxy.oauth.http import TokenEndpoint
from emailproxy.store.ini import IniStore
from emailproxy.store.pending import IniPendingStore
from emailproxy.wire.events import Login, Visit
from tests.oauth.forking import at_work, fork_for_each_line
from tests.oauth.world import ADA, CHEAP, PASSWORD, account_at

FASTER = 100_000
"""A token of an hour lasts for 36 ms, and is renewed after 30."""


@dataclass(frozen=True)
class Hurried:
    """Both clocks, and whoever waits for them."""

    started_s: float

    def wall_s(self) -> float:
        return 1_800_000_000 + (time.time() - self.started_s) * FASTER

    @staticmethod
    def monotonic_s() -> float:
        return time.monotonic() * FASTER

    @staticmethod
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / FASTER)

    @staticmethod
    async def wait(event: asyncio.Event, timeout_s: float) -> None:
        await wait(event, timeout_s / FASTER)

    @property
    def clock(self) -> Clock:
        return Clock(self.wall_s, self.monotonic_s, self.sleep, self.wait)


async def keep(folder: Path, account: Account, clock: Clock) -> None:
    records, pending = IniStore(folder), IniPendingStore(folder)
    grants = flows(TokenEndpoint(clock=Clock(wall_s=clock.wall_s)))  # its time limits are meant as they are
    consents = Consents(pending, records, grants, lambda _: account, clock=clock)
    broker = TokenBroker(
        lambda _: account, records, consents, grants, settings=BrokerSettings(consent_wait_s=0), clock=clock, cost=CHEAP
    )
    broker.start()
    at_work()
    await broker.token(Login(ADA, PASSWORD), Visit("s1", "IMAP", "127.0.0.1"))
    await asyncio.Event().wait()


def main(folder: str, token_url: str, started: str) -> None:
    account = account_at(token_url)
    fork_for_each_line(lambda: keep(Path(folder), account, Hurried(float(started)).clock))


if __name__ == "__main__":
    main(*sys.argv[1:])
