"""The device grant (RFC 8628) through a mail login: where the code is told, and what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.harness.realm import Realm, Settings, realm
from tests.e2e.harness.world import USER
from tests.fakes.entra import App
from tests.fakes.provider import altered

pytestmark = pytest.mark.system("dovecot")

GRANTS = ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"]
SOON_OVER = altered(expires_in=1)


@dataclass
class Desk:
    """A provider, and what a person does there."""

    realm: Realm
    account: Settings
    page: str
    """Where the code is typed."""
    enter: Callable[[str], None]
    granted: Callable[[], list[str]]
    """The grants that tokens were given for, in order."""


@contextlib.asynccontextmanager
async def ours(folder: Path) -> AsyncIterator[Desk]:
    async with realm(folder) as one:
        provider = one.provider
        provider.interval_s = 1

        def enter(code: str) -> None:
            provider.decide(code)
            provider.next(SOON_OVER)  # it meets the poll that comes next

        def granted() -> list[str]:
            return [request.grant for request in provider.requests if request.status == 200]

        yield Desk(one, one.device, f"{provider.url}/activate", enter, granted)


@contextlib.asynccontextmanager
async def microsoft(folder: Path) -> AsyncIterator[Desk]:
    app = App("a-public-client")
    async with realm(folder) as one, one.microsoft(app, interval_s=1) as provider:

        def enter(code: str) -> None:
            provider.enter(code)
            provider.next(SOON_OVER)

        def granted() -> list[str]:
            tokens = [asked for asked in provider.asked if asked.endpoint == "token" and asked.status == 200]
            return [asked.form["grant_type"] for asked in tokens]

        yield Desk(one, one.at_microsoft(app, "device"), "https://microsoft.com/devicelogin", enter, granted)


Desks = Callable[[Path], AbstractAsyncContextManager[Desk]]
AT = pytest.mark.parametrize("at", [ours, microsoft])


@AT
async def test_a_login_tells_a_code_and_goes_through_once_it_is_entered(tmp_path: Path, at: Desks) -> None:
    async with at(tmp_path) as desk:
        async with desk.realm.proxy(desk.account) as proxy:
            told = await desk.realm.refusal()
            found = re.search(rf"open {re.escape(desk.page)} and enter the code (\S+?),", told)
            assert "[UNAVAILABLE]" in told
            assert found, told
            await proxy.printed(re.escape(f"Visit {desk.page} and use code {found[1]} to authenticate account {USER}"))

            waiting = await desk.realm.run("logs", "--consent")
            assert (waiting.code, waiting.output.count("\n")) == (3, 1)
            assert waiting.output.startswith(desk.page)
            assert f"(use code {found[1]})" in waiting.output
            facts = json.loads((await desk.realm.run("logs", "--consent", "--json")).output)
            assert (facts["account"], facts["user_code"]) == (USER, found[1])

            desk.enter(found[1])
            await proxy.printed(f"account {USER} is signed in as {USER}")
            await desk.realm.log_in()
            settled = await desk.realm.run("logs", "--consent")
            assert (settled.code, settled.output) == (0, "")
            await desk.realm.log_in_until(lambda: len(desk.granted()) > 1)
        assert desk.granted() == GRANTS


@AT
async def test_authorize_tells_a_code_and_waits(tmp_path: Path, at: Desks) -> None:
    async with at(tmp_path) as desk:
        desk.realm.configure(desk.account)
        async with desk.realm.authorize() as program:
            found = await program.printed(r"Visit (\S+) and use code (\S+)\n")
            assert found[1] == desk.page
            desk.enter(found[2])
            assert await program.end(20) == 0, program.output
            assert f"{USER} is signed in as {USER}" in program.output
        async with desk.realm.proxy(desk.account):
            await desk.realm.log_in()
            await desk.realm.log_in_until(lambda: len(desk.granted()) > 1)
        assert desk.granted() == GRANTS


async def test_a_login_that_waits_is_told_that_the_person_declined(tmp_path: Path) -> None:
    async with ours(tmp_path) as desk, desk.realm.proxy(desk.account, consent_wait=20) as proxy:
        refusal = asyncio.create_task(desk.realm.refusal())
        code = (await proxy.printed(r"use code (\S+) to"))[1]
        desk.realm.provider.decide(code, "declined")
        assert f"{USER}: the sign-in was declined" in await refusal
        login = asyncio.create_task(desk.realm.log_in())
        code = (await proxy.printed(r"use code (\S+) to", start=proxy.output.rindex(code)))[1]
        desk.enter(code)
        await login
