"""A configuration that changes under a running broker counts at the next login, the next renewal and the next poll."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from emailproxy.config.model import DAYS, FlowName
from emailproxy.errors import ConsentRequired, ProviderRefused, UnknownAccount
from emailproxy.oauth.broker import BrokerSettings
from emailproxy.oauth.keeper import EARLIER, KEEP_ALIVE_EARLIER
from emailproxy.secret import Secret
from tests.fakes.device import Desk
from tests.oauth.world import ADA, Process, World, browse, until

MARGIN_S = 600


@pytest.fixture
async def process(world: World) -> Process:
    world.account()
    process = await world.process(keeps=True, wait_s=0)
    await world.signed_in(process)
    await process.login()
    return process


def configure(process: Process, **changes: float) -> None:
    process.broker.configure(replace(BrokerSettings(consent_wait_s=0), **changes))  # type: ignore[arg-type]


async def test_an_account_that_is_gone_is_renewed_no_more(world: World, process: Process) -> None:
    account = world.accounts.pop(ADA)
    asked = len(world.grants())
    world.turned.turn(3600)
    await process.kept()
    with pytest.raises(UnknownAccount):
        await process.login()
    assert len(world.grants()) == asked
    world.accounts[ADA] = account  # and back again
    world.provider.verify(await process.login())
    assert world.grants()[asked:] == ["refresh_token"]


async def test_the_next_renewal_asks_as_configured_now(world: World, process: Process) -> None:
    world.account(client_secret=Secret("wrong"))
    world.turned.turn(3100)
    await process.kept()
    assert world.provider.requests[-1].status == 401
    world.account()
    world.turned.turn(600)
    world.provider.verify(await process.login())


async def test_the_next_forced_renewal_asks_as_configured_now(world: World, process: Process) -> None:
    world.account(client_secret=Secret("wrong"))
    with pytest.raises(ProviderRefused):
        await process.login(rejected="535 no")


async def test_a_grant_that_needs_nobody_takes_the_place_of_a_persons(world: World, process: Process) -> None:
    world.application()
    world.turned.turn(3600)
    world.provider.verify(await process.login())
    assert world.grants()[-1] == "client_credentials"


async def test_a_wider_margin_renews_what_is_held_already(world: World, process: Process) -> None:
    asked = len(world.grants())
    world.turned.turn(3600 - 2 * MARGIN_S)
    await process.kept()
    assert len(world.grants()) == asked
    configure(process, refresh_margin_s=2 * MARGIN_S)
    await process.kept()
    assert len(world.grants()) == asked + 1
    configure(process, refresh_margin_s=60)
    world.turned.turn(3600 - 60 * (1 + EARLIER) - 1)
    await process.kept()
    assert len(world.grants()) == asked + 1
    world.turned.turn(60 * EARLIER + 2)
    await process.kept()
    assert len(world.grants()) == asked + 2


async def test_a_shorter_keep_alive_counts_for_what_is_held_already(world: World) -> None:
    world.account()
    world.provider.expires_in = 10 * DAYS
    process = await world.process(keeps=True)
    await world.signed_in(process)
    await process.login()
    configure(process, keep_alive_s=1 * DAYS)
    world.turned.turn(DAYS * (1 - KEEP_ALIVE_EARLIER) - 1)
    await process.kept()
    assert world.grants() == ["authorization_code"]
    world.turned.turn(DAYS * KEEP_ALIVE_EARLIER + 2)
    await process.kept()
    assert world.grants() == ["authorization_code", "refresh_token"]


async def test_a_login_waits_for_a_person_as_long_as_configured_now(world: World) -> None:
    world.account()
    process = await world.process(wait_s=0)
    with pytest.raises(ConsentRequired) as caught:
        await process.login()
    configure(process, consent_wait_s=3600)
    login = asyncio.create_task(process.login())
    await until(lambda: bool(process.consents._watches._watches))
    assert (await browse(caught.value.url)).status == 200
    world.provider.verify(await login)


@pytest.mark.parametrize("gone", [True, False])
async def test_a_device_code_of_an_account_that_changed_is_not_asked_for_any_more(world: World, gone: bool) -> None:
    async with Desk(lambda: world.turned.wall, world.provider.access_token) as desk:
        device: dict[str, Any] = {
            "flow": FlowName.DEVICE,
            "permission_url": f"{desk.url}/device",
            "token_url": f"{desk.url}/token",
        }
        world.account(**device)
        process = await world.process(wait_s=0)
        with pytest.raises(ConsentRequired):
            await process.login()
        if gone:
            del world.accounts[ADA]
        else:
            world.account(**device, scope="another")
        await until(lambda: bool(world.turned.alarms))
        world.turned.turn(10)
        await until(lambda: not process.consents._poller._loops)
        assert desk.polls == []
        assert world.files() == {}
