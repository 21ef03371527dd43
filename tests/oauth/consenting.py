"""Processes that wait for one account's consent and complete it: ``python -m tests.oauth.consenting FOLDER FLOW
TOKEN_URL PERMISSION_URL PORT``. Their clock stands still, as the test's does; no device's interval takes long."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from emailproxy.config.model import Account, FlowName
from emailproxy.oauth.broker import TokenBroker
from emailproxy.oauth.clock import Clock, wait
from emailproxy.oauth.consent import Consents
from emailproxy.oauth.generic import flows
from emailproxy.oauth.http import TokenEndpoint
from emailproxy.oauth.redirect import RedirectListener
from emailproxy.store.ini import IniStore
from emailproxy.store.pending import IniPendingStore
from tests.oauth.forking import at_work, fork_for_each_line
from tests.oauth.world import ADA, CHEAP, PASSWORD, Turned, account_at

FASTER = 1000


def still_s() -> float:
    return Turned().wall


async def soon(event: asyncio.Event, timeout_s: float) -> None:
    await wait(event, timeout_s / FASTER)


async def consent(folder: Path, account: Account) -> None:
    """Takes up the consent that waits, as `emailproxy authorize` does."""
    clock = Clock(wall_s=still_s, wait=soon)
    records, pending = IniStore(folder, now=still_s), IniPendingStore(folder, now=still_s)
    grants = flows(TokenEndpoint(clock=clock))
    consents = Consents(pending, records, grants, lambda _: account, clock=clock)
    listener = RedirectListener(consents)
    broker = TokenBroker(lambda _: account, records, consents, grants, listener=listener, clock=clock, cost=CHEAP)
    await broker.sign_in(ADA, PASSWORD)
    at_work()
    await asyncio.Event().wait()


def main(folder: str, flow: str, token_url: str, permission_url: str, port: str) -> None:
    account = account_at(
        token_url, flow=FlowName(flow), permission_url=permission_url, redirect_uri=f"http://127.0.0.1:{port}/"
    )
    import emailproxy.oauth.web  # noqa: F401 - once, and not in each fork

    fork_for_each_line(lambda: consent(Path(folder), account))


if __name__ == "__main__":
    main(*sys.argv[1:])
