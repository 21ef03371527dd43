"""A provider in trouble is asked a few times in half a minute for an account, however many log in to it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from emailproxy.errors import ProviderUnavailable
from emailproxy.oauth.attempts import MAX_ATTEMPTS
from emailproxy.oauth.broker import BrokerSettings
from emailproxy.oauth.lulls import LULL_S, Lulls
from tests.fakes.provider import Fault, Reset, garbage, unavailable
from tests.oauth.world import ADA, World, account_at

EVE = "eve@example.org"
LIFE_S = 3600
LOGINS = 20


@pytest.mark.parametrize("has_record", [True, False])
@pytest.mark.parametrize(
    ("fault", "requests"),
    [(unavailable(), MAX_ATTEMPTS), (Reset(), MAX_ATTEMPTS), (garbage(), 1)],
    ids=["503", "reset", "garbage"],
)
async def test_many_logins_cost_a_provider_in_trouble_few_requests(
    tmp_path: Path, fault: Fault, requests: int, has_record: bool
) -> None:
    async with World.at(tmp_path / "state", expires_in=LIFE_S) as world:
        process = await world.process()
        for name in (ADA, EVE):
            if has_record:
                world.account(name)
                await world.signed_in(process, name)
            else:
                world.application(name)
        world.turned.turn(LIFE_S)
        world.provider.next(*itertools.repeat(fault, requests))
        asked, told = world.provider.arrived, []
        for _ in range(LOGINS):
            with pytest.raises(ProviderUnavailable) as caught:
                await process.login()
            told.append(str(caught.value))
        assert world.provider.arrived == asked + requests
        assert "try again in" not in told[0]
        assert all(text.startswith(f"{told[0]}; try again in ") for text in told[1:])
        await process.login(EVE)  # another account of the same client
        world.turned.turn(LULL_S)
        await process.login()


async def test_a_changed_configuration_is_tried_at_once(tmp_path: Path) -> None:
    async with World.at(tmp_path / "state", expires_in=LIFE_S) as world:
        process = await world.process()
        account = world.account()
        await world.signed_in(process)
        world.turned.turn(LIFE_S)
        world.account(token_url=f"{account.token_url}/nowhere", permission_url=account.permission_url)
        with pytest.raises(ProviderUnavailable):
            await process.login()
        world.account()
        with pytest.raises(ProviderUnavailable, match="try again in"):
            await process.login()
        process.broker.configure(BrokerSettings())
        world.provider.verify(await process.login())


def test_what_was_asked_before_a_change_keeps_nobody_out_after_it() -> None:
    lulls, account = Lulls(lambda: 0.0), account_at("http://127.0.0.1/token")

    def ask() -> None:
        with lulls.asking(account):
            lulls.forget()
            raise ProviderUnavailable("no answer")

    with pytest.raises(ProviderUnavailable):
        ask()
    with lulls.asking(account):
        pass
