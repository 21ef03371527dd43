"""Tokens that are renewed ahead of their end: when, how often, beside logins, and at what cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from emailproxy.config.model import DAYS, HOURS
from emailproxy.oauth import holdings, keeper
from emailproxy.oauth.flow import Approval
from emailproxy.oauth.happenings import Event
from emailproxy.oauth.lifetimes import MARGIN_S
from tests.oauth.steady import Steady, stored, turned, unlocked
from tests.oauth.world import ADA, World, settled, until


@pytest.fixture
def provider(world: World) -> Steady:
    return Steady(world.turned)


# ---- when


async def test_a_token_is_renewed_ahead_and_the_login_finds_it(world: World, provider: Steady) -> None:
    process = await unlocked(world, provider)
    await turned(world, process, 3600 - MARGIN_S * (1 + keeper.EARLIER) - 1)
    assert provider.calls == 0
    await turned(world, process, MARGIN_S * keeper.EARLIER + 1)
    assert provider.calls == 1
    assert await process.login() == f"access-{ADA}-2"
    assert provider.calls == 1
    assert [happening.event for happening in process.told] == [Event.TOKEN_REFRESHED]
    assert process.told[0].account == ADA
    assert process.told[0].expires_at_s == (await stored(process)).expires_at_s


async def test_many_accounts_do_not_ask_in_step(world: World, provider: Steady) -> None:
    process = await world.process(keeps=True, listens=False, flow=provider)
    names = [f"user{number}@example.org" for number in range(20)]
    for name in names:
        await provider.set_up(world, process, name)
        await process.login(name)
    for _ in range(60):
        await turned(world, process, 60)
    times = {provider.granted_at_s[name][1] - provider.granted_at_s[name][0] for name in names}
    assert len(times) > 1
    assert all(3600 - MARGIN_S * (1 + keeper.EARLIER) <= at_s <= 3600 - MARGIN_S + 60 for at_s in times)


@pytest.mark.parametrize(
    ("life_s", "margin_s", "latest_s"),
    [
        (3600, 600, 3000),
        (3600, 0, 3600),
        (3600, 1 * DAYS, 1800),  # longer than the life: half of it
        (100, 600, 50),
        (10 * DAYS, 1 * HOURS, 10 * DAYS - 1 * HOURS),
    ],
)
async def test_the_margin_is_half_the_life_at_most(
    world: World, provider: Steady, life_s: int, margin_s: float, latest_s: float
) -> None:
    provider.life_s = life_s
    process = await unlocked(world, provider, refresh_margin_s=margin_s)
    await turned(world, process, latest_s - keeper.EARLIER * min(margin_s, life_s / 2) - 1)
    assert provider.calls == 0
    await turned(world, process, keeper.EARLIER * min(margin_s, life_s / 2) + 1)
    assert provider.calls == 1


@pytest.mark.parametrize("life_s", [None, 300 * DAYS])
async def test_a_refresh_token_is_used_now_and_then_whatever_the_access_token(
    world: World, provider: Steady, life_s: int | None
) -> None:
    provider.life_s = life_s
    process = await unlocked(world, provider, keep_alive_s=20 * DAYS)
    await turned(world, process, 20 * DAYS * (1 - keeper.KEEP_ALIVE_EARLIER) - 1)
    assert provider.calls == 0
    for expected in (1, 2, 3):
        await turned(world, process, 20 * DAYS)
        assert provider.calls == expected
    assert await process.login() == f"access-{ADA}-4"


async def test_a_refresh_token_that_was_not_used_for_long_is_used_when_its_account_is_unlocked(
    world: World, provider: Steady
) -> None:
    provider.life_s = None
    await provider.set_up(world, await world.process(listens=False, flow=provider), ADA)
    world.turned.turn(21 * DAYS)
    process = await world.process(keeps=True, listens=False, flow=provider)
    assert await process.login() == f"access-{ADA}-1"  # nobody waits for it
    await process.kept()
    assert await process.login() == f"access-{ADA}-2"


async def test_what_needs_nobody_is_renewed_while_somebody_uses_it(world: World, provider: Steady) -> None:
    provider.approval, provider.refreshable = Approval.NONE, False
    process = await unlocked(world, provider, keep_alive_s=1 * DAYS)
    for hour in range(20):
        await turned(world, process, 3600)
        assert provider.calls == hour + 1
    for _ in range(20):
        await turned(world, process, 3600)
    asked = provider.calls
    assert asked <= 26  # nobody came for a day
    assert await process.login() == f"access-{ADA}-{asked + 2}"
    await turned(world, process, 3600)
    assert provider.calls == asked + 2  # and the keeper is back


async def test_what_only_a_person_can_renew_is_left_alone(world: World, provider: Steady) -> None:
    provider.refreshable = False
    process = await unlocked(world, provider)
    await turned(world, process, 3599)
    assert await process.login() == f"access-{ADA}-1"
    await turned(world, process, 30 * DAYS)
    assert provider.calls == 0


async def test_a_provider_whose_tokens_die_at_once_is_not_asked_all_the_time(world: World, provider: Steady) -> None:
    provider.life_s = 1
    process = await unlocked(world, provider)
    for _ in range(100):
        await turned(world, process, 1)
    assert provider.calls <= 100 / keeper.MIN_PERIOD_S


async def test_a_process_without_a_keeper_renews_nothing_ahead(world: World, provider: Steady) -> None:
    process = await world.process(listens=False, flow=provider)
    await provider.set_up(world, process, ADA)
    await process.login()
    world.turned.turn(1 * DAYS)
    await settled()
    assert provider.calls == 0
    assert world.turned.alarms == {}


# ---- beside logins


async def test_a_login_that_meets_a_renewal_under_way_uses_the_token_that_lives(world: World, provider: Steady) -> None:
    process = await unlocked(world, provider)
    provider.gate = asyncio.Event()
    world.turned.turn(3600 - MARGIN_S)
    await until(lambda: provider.busy == 1)
    world.turned.turn(MARGIN_S - 1)
    assert await process.login() == f"access-{ADA}-1"
    world.turned.turn(1)  # now it is dead: the login waits for the one request that is under way
    login = asyncio.create_task(process.login())
    await settled()
    assert not login.done()
    provider.gate.set()
    assert await login == f"access-{ADA}-2"
    assert provider.calls == 1


async def test_two_servers_on_one_folder_refresh_once_a_period_between_them(world: World, provider: Steady) -> None:
    provider.life_s = 60
    processes = [await unlocked(world, provider)]
    processes.append(await world.process(keeps=True, listens=False, flow=provider))
    await processes[1].login()
    for _ in range(20 * 60):
        world.turned.turn(1)
        await asyncio.gather(*(process.kept() for process in processes))
    times = provider.granted_at_s[ADA]
    assert min(later - earlier for earlier, later in pairwise(times)) >= 24
    assert provider.lost == 0
    latest = f"access-{ADA}-{len(times)}"
    assert [await process.login() for process in processes] == [latest, latest]
    refreshed = [len(process.told) for process in processes]
    assert sum(refreshed) == len(times) - 1 == provider.calls


async def test_ending_lets_a_renewal_reach_the_disk(world: World, provider: Steady) -> None:
    process = await unlocked(world, provider)
    provider.gate = asyncio.Event()
    world.turned.turn(3600 - MARGIN_S)
    await until(lambda: provider.busy == 1)
    closing = asyncio.create_task(process.broker.close())
    await settled()
    provider.gate.set()
    await closing
    assert await (await world.process(listens=False, flow=provider)).login() == f"access-{ADA}-2"
    assert provider.lost == 0


async def test_a_machine_that_wakes_with_many_accounts_is_no_flood(
    world: World, provider: Steady, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "AT_ONCE", 7)  # so that there are many looks
    process = await world.process(keeps=True, listens=False, flow=provider)
    for number in range(30):
        await provider.set_up(world, process, f"user{number}@example.org")
        await process.login(f"user{number}@example.org")
    provider.gate = asyncio.Event()
    world.turned.turn(1 * DAYS)
    await until(lambda: provider.busy == keeper.PER_PROVIDER)
    await settled()
    provider.gate.set()
    await process.kept()
    assert provider.busiest == keeper.PER_PROVIDER
    assert provider.calls == 30


# ---- cost


async def test_ten_thousand_accounts_are_cheap(
    world: World, provider: Steady, record_property: Callable[[str, object], None]
) -> None:
    process = await unlocked(world, provider)
    held = process.broker._holdings.get(ADA)
    assert held is not None
    start_s = time.process_time()
    for number in range(holdings.MAX_HELD - 1):
        account = world.account(f"user{number}@example.org")
        process.broker._holdings.hold(
            holdings.Held(account, held.key, held.record, held.tokens, held.term, held.used_at_s)
        )
    planned_s = time.process_time() - start_s
    start_s = time.process_time()
    for _ in range(60):  # half an hour in which nothing is due
        await turned(world, process, keeper.LOOK_EVERY_S)
    looked_s = time.process_time() - start_s
    world.turned.wall -= 5  # a jump: all of them are planned anew
    start_s = time.process_time()
    await turned(world, process, keeper.LOOK_EVERY_S)
    anew_s = time.process_time() - start_s
    record_property("cpu_s_planned_looked_anew", (planned_s, looked_s, anew_s))
    assert provider.calls == 0
    assert looked_s < 0.5
    assert anew_s < 2.0
    assert len(process.broker._keeper._heap) <= 2 * holdings.MAX_HELD + keeper.SLACK
