"""Ten accounts whose tokens live for a minute, for days, at a provider that fails every fifth time."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from emailproxy.config.model import DAYS, HOURS
from emailproxy.oauth.happenings import Event
from emailproxy.oauth.keeper import EARLIER
from emailproxy.wire.events import Login
from tests.oauth.steady import Steady
from tests.oauth.world import PASSWORD, Process, World, visit_of

ACCOUNTS = 10
LIFE_S = 60
LONG = bool(os.environ.get("EMAILPROXY_LONG_TESTS"))
SPAN_S = 10 * DAYS if LONG else 2 * HOURS


async def log_in(world: World, process: Process, provider: Steady, name: str) -> bool:
    """A login that does not wait for the provider; whether it waits for no file either."""
    account, asked = world.resolve(name), provider.calls
    ready = process.broker._logins.ready(account, PASSWORD, visit_of()) is not None
    credential = await process.broker.token(Login(name, PASSWORD), visit_of())
    assert provider.calls == asked
    number = credential.token.reveal().rpartition("-")[2]
    granted_at_s = provider.granted_at_s[name][int(number) - 1]
    assert world.turned.wall < granted_at_s + LIFE_S
    return ready


@pytest.mark.timeout(4 * HOURS if LONG else 120)
async def test_tokens_of_a_minute_last_for_days(tmp_path: Path) -> None:
    async with World.at(tmp_path / "state") as world:
        provider = Steady(world.turned, life_s=LIFE_S)
        process = await world.process(keeps=True, listens=False, flow=provider)
        names = [f"user{number}@example.org" for number in range(ACCOUNTS)]
        for name in names:
            await provider.set_up(world, process, name)
            await process.login(name)
        provider.fault_rate = 0.2
        end_s, turns, waited = world.turned.monotonic + SPAN_S, itertools.cycle(names), 0
        while world.turned.monotonic < end_s:
            world.turned.turn(max(0.0, min(world.turned.alarms.values()) - world.turned.monotonic))
            await process.kept()
            waited += not await log_in(world, process, provider, next(turns))

        assert waited <= ACCOUNTS * (SPAN_S // HOURS + 1)  # its password's last use is noted once an hour
        assert provider.lost == 0
        grants = sum(len(times) for times in provider.granted_at_s.values())
        assert grants < 0.85 * provider.calls  # the provider did fail
        assert len(process.told) == grants - ACCOUNTS
        assert {happening.event for happening in process.told} == {Event.TOKEN_REFRESHED}
        earliest_s = (LIFE_S - 1) / 2 * (1 - EARLIER)  # the end is in whole seconds, and the margin half the life
        for times in provider.granted_at_s.values():
            periods = [later - earlier for earlier, later in itertools.pairwise([*times, world.turned.wall])]
            assert max(periods) < LIFE_S
            assert min(periods[:-1]) >= earliest_s  # one refresh a period, and no more
        await process.broker.close()
        after = await world.process(listens=False, flow=provider)
        for name in names:  # what is on disk is what the provider knows
            assert (await after.login(name)).endswith(f"-{len(provider.granted_at_s[name])}")
        assert provider.lost == 0
