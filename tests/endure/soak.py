"""Hours of ordinary work in minutes: nothing lost, nothing left, nothing grown."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

from tests.endure.frame import Stage, scenario
from tests.endure.site import Site, site
from tests.endure.traffic import MIB, Traffic
from tests.endure.watch import seconds_until

RESTS = 12
"""How often the traffic pauses: at these points, with no session left, memory and descriptors are compared."""
TOKEN_S, MARGIN_S = 30, 5
"""An access token's life, and how long before its end it is renewed."""
SETTLES_S = 10.0
GROWTH_SHARE = 0.02
"""Of memory, in the second half, or `GROWTH_KIB` where that is more."""
GROWTH_KIB = 1024
SHORT_GROWTH_KIB = 8192
"""In two minutes the second half is still in what the allocator does at first."""
PROVIDERS = 1
"""Connections that are kept for some seconds after a token was renewed, for the next one."""
HOUR_S = 3600.0


class Rest(NamedTuple):
    """What the proxy holds when nobody is there."""

    at_s: float
    rss_kib: int
    descriptors: int


@scenario(
    "soak",
    group="soak",
    what="Mixed traffic by all protocols for --minutes, with tokens that last 30 s; every message is compared.",
    lasting=True,
)
async def soak(stage: Stage) -> None:
    settings = {"refresh_margin": f"{MARGIN_S} s"}
    async with site(stage, settings=settings, expires_in=TOKEN_S) as here:
        traffic = Traffic(here)
        traffic.deliver()
        began_s = time.monotonic()
        rests = []
        async with traffic.running():
            for number in range(1, RESTS + 1):
                until_s = began_s + stage.minutes * 60 * number / RESTS
                await asyncio.sleep(max(0.0, until_s - time.monotonic()))
                await traffic.pause()
                rests.append(await _rest(here, began_s))
                traffic.go_on()
        _judge_traffic(stage, traffic, time.monotonic() - began_s)
        _judge_tokens(stage, here, stage.minutes * 60)
        _judge_memory(stage, rests)
        here.watch.judge_log(stage)


async def _rest(here: Site, began_s: float) -> Rest:
    settled_s = await seconds_until(lambda: here.sessions() == 0, SETTLES_S)
    if settled_s > SETTLES_S:
        here.stage.figure("sessions that stay when everybody has left", here.sessions(), exactly=0)
    rest = Rest(time.monotonic() - began_s, here.watch.rss_kib, here.watch.descriptors)
    here.stage.say(f"after {rest.at_s:.0f} s, at rest: {rest.rss_kib:,} KiB, {rest.descriptors} descriptors")
    return rest


def _judge_traffic(stage: Stage, traffic: Traffic, seconds: float) -> None:
    for fault, often in traffic.faults.most_common(5):
        stage.say(f"{often} times: {fault}")
    for name, rounds in sorted(traffic.rounds.items()):
        stage.figure(f"rounds of {name}", rounds, at_least=1)
    stage.figure("rounds a second", traffic.rounds.total() / seconds)
    stage.figure("messages compared", traffic.compared, at_least=10)
    stage.figure("octets compared", traffic.octets / MIB, "MiB")
    stage.figure("rounds that went wrong, changed messages included", traffic.faults.total(), exactly=0)


def _judge_tokens(stage: Stage, here: Site, seconds: float) -> None:
    refreshes = sum(request.grant == "refresh_token" for request in here.world.provider.requests)
    failed = sum(request.status != 200 for request in here.world.provider.requests)
    due = int(seconds / TOKEN_S)
    stage.figure("tokens renewed", refreshes, at_least=due // 2, at_most=2 * due + 2)
    stage.figure("requests that the provider refused", failed, exactly=0)
    stage.figure("authorizations revoked", here.world.provider.revoked_families, exactly=0)


def _judge_memory(stage: Stage, rests: Sequence[Rest]) -> None:
    """By the second half: in the first one caches fill, and the allocator takes what it needs."""
    half = rests[len(rests) // 2 - 1 :]
    slope = statistics.linear_regression([rest.at_s for rest in half], [rest.rss_kib for rest in half]).slope
    grown_kib = slope * (half[-1].at_s - half[0].at_s)
    allowed_kib = max(GROWTH_KIB, round(GROWTH_SHARE * half[0].rss_kib))
    stage.figure("memory at rest, at the middle", half[0].rss_kib, "KiB")
    stage.figure("memory at rest, in the end", half[-1].rss_kib, "KiB")
    stage.figure("memory's slope in the second half, by least squares", slope * HOUR_S / 1024, "MiB/h")
    most_kib = stage.effort(allowed_kib, SHORT_GROWTH_KIB)
    stage.figure("memory grown by in the second half, by that slope", grown_kib, "KiB", at_most=most_kib)
    spread = max(rest.descriptors for rest in half) - min(rest.descriptors for rest in half)
    stage.figure("descriptors at rest", half[-1].descriptors)
    stage.figure("descriptors at rest, the most less the fewest", spread, at_most=PROVIDERS)
