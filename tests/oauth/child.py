"""One emailproxy process of several: ``python -m tests.oauth.child FOLDER TOKEN_URL PORT LOGINS STARTED``.

Its clock runs so fast that every token has ended when it is looked at again.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from emailproxy.config.model import Account
from emailproxy.oauth.broker import BrokerSettings, TokenBroker
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.consent import Consents
from emailproxy.oauth.generic import flows
from emailproxy.oauth.http import TokenEndpoint
from emailproxy.store.ini import IniStore
from emailproxy.store.pending import IniPendingStore
from emailproxy.wire.events import Login, Visit
from tests.oauth.world import ADA, CHEAP, PASSWORD, account_at

FASTER = 1_000_000


@dataclass
class Hurried:
    started_s: float

    def wall_s(self) -> float:
        return 1_800_000_000 + (time.time() - self.started_s) * FASTER


async def run(folder: Path, account: Account, logins: int, clock: Clock) -> None:
    """Prints how many different tokens it got."""
    records, pending = IniStore(folder), IniPendingStore(folder)
    endpoint = TokenEndpoint(clock=clock)
    grants = flows(endpoint)
    consents = Consents(pending, records, grants, lambda _: account, clock=clock)
    broker = TokenBroker(
        lambda _: account, records, consents, grants, settings=BrokerSettings(consent_wait_s=0), clock=clock, cost=CHEAP
    )
    print("ready", flush=True)
    sys.stdin.readline()
    tokens = set()
    for number in range(logins):
        credential = await broker.token(Login(ADA, PASSWORD), Visit(f"s{number}", "IMAP", "127.0.0.1"))
        tokens.add(credential.token.reveal())
    await broker.close()
    await endpoint.close()
    pending.close()
    records.close()
    print(len(tokens))


def main(folder: str, token_url: str, port: str, logins: str, started: str) -> None:
    account = account_at(token_url, redirect_uri=f"http://127.0.0.1:{port}/")
    asyncio.run(run(Path(folder), account, int(logins), Clock(wall_s=Hurried(float(started)).wall_s)))


if __name__ == "__main__":
    main(*sys.argv[1:])
