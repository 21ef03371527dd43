"""Clocks that jump, laptops that sleep: a refresh at most for each account, and no dead token that looks live."""

from __future__ import annotations

import pytest

from emailproxy.config.model import DAYS, HOURS
from emailproxy.oauth.clock import Now
from emailproxy.oauth.flow import TokenSet
from emailproxy.oauth.keeper import LOOK_EVERY_S
from emailproxy.oauth.lifetimes import MARGIN_S, MAX_BEHIND_S, Term
from emailproxy.secret import Secret
from tests.oauth.steady import Steady, turned, unlocked
from tests.oauth.world import ADA, Process, World

LIFE_S = 3600
ACCOUNTS = [f"user{number}@example.org" for number in range(5)]


@pytest.fixture
def provider(world: World) -> Steady:
    return Steady(world.turned, life_s=LIFE_S)


@pytest.fixture
async def process(world: World, provider: Steady) -> Process:
    process = await world.process(keeps=True, listens=False, flow=provider, wait_s=0)
    for name in ACCOUNTS:
        await provider.set_up(world, process, name)
        await process.login(name)
    return process


async def an_hour(world: World, process: Process) -> None:
    for _ in range(120):
        await turned(world, process, 30)


async def test_a_jump_forwards_costs_one_refresh_an_account(world: World, process: Process, provider: Steady) -> None:
    world.turned.wall += 5 * HOURS
    await turned(world, process, LOOK_EVERY_S)
    assert provider.calls == len(ACCOUNTS)
    await turned(world, process, LIFE_S / 2)
    assert provider.calls == len(ACCOUNTS)
    for name in ACCOUNTS:
        assert await process.login(name) == f"access-{name}-2"


async def test_a_jump_backwards_costs_none_and_the_tokens_end_when_they_do(
    world: World, process: Process, provider: Steady
) -> None:
    world.turned.wall -= 5 * HOURS
    await turned(world, process, LOOK_EVERY_S)
    assert provider.calls == 0
    await turned(world, process, LIFE_S - MARGIN_S)
    assert provider.calls == len(ACCOUNTS)  # by the wall clock they are to live for hours
    await an_hour(world, process)
    assert provider.calls == 2 * len(ACCOUNTS)


async def test_a_clock_that_jumps_there_and_back_costs_one_refresh(
    world: World, process: Process, provider: Steady
) -> None:
    world.turned.wall += 5 * HOURS
    await turned(world, process, LOOK_EVERY_S)
    world.turned.wall -= 5 * HOURS
    await turned(world, process, LOOK_EVERY_S)
    assert provider.calls == len(ACCOUNTS)
    for name in ACCOUNTS:
        assert await process.login(name) == f"access-{name}-2"
    assert provider.calls == len(ACCOUNTS)


async def test_a_laptop_that_slept_for_a_day_renews_when_it_wakes(
    world: World, process: Process, provider: Steady
) -> None:
    """The monotonic clock stood still meanwhile, and with it every timer."""
    world.turned.wall += 1 * DAYS
    await turned(world, process, LOOK_EVERY_S)
    assert provider.calls == len(ACCOUNTS)
    assert await process.login(ACCOUNTS[0]) == f"access-{ACCOUNTS[0]}-2"


async def test_a_login_right_after_the_wake_gets_a_live_token(world: World, process: Process, provider: Steady) -> None:
    world.turned.wall += 1 * DAYS  # and the keeper has not looked yet
    assert await process.login(ACCOUNTS[0]) == f"access-{ACCOUNTS[0]}-2"
    await turned(world, process, LOOK_EVERY_S)
    assert provider.calls == len(ACCOUNTS)


async def test_without_a_keeper_a_clock_set_back_makes_no_dead_token_live(world: World, provider: Steady) -> None:
    process = await world.process(listens=False, flow=provider)
    await provider.set_up(world, process, ADA)
    await process.login()
    world.turned.turn(LIFE_S)
    world.turned.wall -= LIFE_S
    assert await process.login() == f"access-{ADA}-2"


async def test_after_a_restart_a_token_of_the_future_is_not_trusted(world: World, provider: Steady) -> None:
    await provider.set_up(world, await world.process(listens=False, flow=provider), ADA)
    world.turned.turn(2 * LIFE_S)
    world.turned.wall -= 3 * LIFE_S
    process = await world.process(listens=False, flow=provider)
    assert await process.login() == f"access-{ADA}-2"
    assert await process.login() == f"access-{ADA}-2"


async def test_keeping_alive_survives_sleep(world: World, provider: Steady) -> None:
    provider.life_s = None
    process = await unlocked(world, provider)
    world.turned.wall += 20 * DAYS
    await turned(world, process, LOOK_EVERY_S)
    assert provider.calls == 1
    assert await process.login() == f"access-{ADA}-2"


@pytest.mark.parametrize(
    ("obtained_at_s", "expires_at_s", "fresh", "live"),
    [
        (1000, None, True, True),
        (None, None, True, True),
        (1000, 4600, True, True),
        (1000 + MAX_BEHIND_S, 4600, True, True),  # the clock of another machine
        (1000 + MAX_BEHIND_S + 1, 4600, False, False),
        (1000 + MAX_BEHIND_S + 1, None, True, True),
        (1000 - 2999, 1601, True, True),
        (1000 - 3000, 1600, False, True),
        (1000 - 3600, 1000, False, False),
        (1000 - 50, 1050, False, True),
        (1000 - 49, 1051, True, True),
        (None, 1600, False, True),
        (None, 1601, True, True),
        (1000, 900, False, False),
    ],
)
def test_what_a_record_says_of_its_token(
    obtained_at_s: int | None, expires_at_s: int | None, fresh: bool, live: bool
) -> None:
    now = Now(1000.0, 5.0)
    term = Term.read(TokenSet(Secret("x"), expires_at_s), obtained_at_s, now, MARGIN_S)
    assert (term.is_fresh(now), term.is_live(now)) == (fresh, live)
