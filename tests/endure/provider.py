"""A provider in trouble, under twenty logins a second: who has a token that works must not notice."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from tests.endure.frame import Stage, scenario
from tests.endure.ground import Ground, ground
from tests.endure.load import Load, Standing
from tests.endure.pulse import judge
from tests.endure.watch import Watch
from tests.fakes import provider as faults
from tests.fakes.provider import FakeProvider, Fault

LIVE = ("live-1@example.com", "live-2@example.com", "live-3@example.com")
"""Their tokens last for longer than the trouble."""
AGEING = "ageing@example.com"
"""Its token is to be renewed from some time on, and works until after the end."""
EACH = 2
"""Accounts whose tokens have ended, for each kind of trouble. They sign in just before it: later, tokens of theirs
would be renewed ahead, and an account that is left alone for now tells nothing of the next trouble."""
ENDED_S = 1
"""What the provider says of the life of their tokens."""
SESSIONS = 5
WINDOW_S, MAX_REQUESTS = 30, 4
"""So many requests to the provider may be made for one account in each window of so many seconds."""
REFUSED_S = 31.0
"""Who waits for a provider that may recover hears by then: half a minute, and what a busy machine adds."""
QUICK_MS = 100.0
"""Most are refused because the provider was asked a moment ago, and hear so by then, the connection included."""
REFUSED = "NO [UNAVAILABLE]"
GRACE_S = 3600.0
"""Some of the garbage is an honest answer with a nonsensical figure: the provider has replaced the refresh token."""
LOOK_S = 0.5


@dataclass(frozen=True)
class Trouble:
    name: str
    makes: Callable[[], Fault]
    retry_after_s: int | None = None
    """What the provider asks for, if anything."""
    quick: bool = True
    """The provider's answer is soon there; else, all wait for it."""


@dataclass
class Stall:
    """The provider takes its time, and then says that it cannot."""

    seconds: float

    async def answer(self, provider: FakeProvider, request: Any) -> Any:
        stopping = asyncio.ensure_future(provider.stopping.wait())
        await asyncio.wait({stopping}, timeout=self.seconds)
        stopping.cancel()
        return await faults.unavailable().answer(provider, request)


def troubles(retry_after_s: int, stall_s: float) -> Sequence[Trouble]:
    errors = itertools.cycle((faults.unavailable(), faults.Reply(500), faults.Reply(502), faults.Reply(504)))
    garbage = itertools.cycle(
        (
            faults.html_page(), faults.garbage(), faults.huge(), faults.deep_json(), faults.altered(expires_in="x"),
            faults.altered(expires_in=-1), faults.altered(expires_in=1e99), faults.Reply(200),
        )
    )  # fmt: skip
    throttled = faults.throttled(str(retry_after_s))
    return (
        Trouble("5xx", lambda: next(errors)),
        Trouble("resets", faults.Reset),
        Trouble("garbage", lambda: next(garbage)),
        Trouble("stalls", lambda: Stall(stall_s), quick=False),
        Trouble("429", lambda: throttled, retry_after_s),
    )


@scenario(
    "provider",
    group="provider",
    what="The provider answers 5xx, resets, garbage, half a minute late, and 429, in turn, under 20 logins a second.",
    limit_s=1800,
    short_limit_s=180,
)
async def provider(stage: Stage) -> None:
    each_s = stage.effort(120.0, 4.0)
    kinds = troubles(stage.effort(60, 8), stage.effort(30.0, 8.0))
    ended = {kind.name: [f"{kind.name}-{number}@example.com" for number in range(EACH)] for kind in kinds}
    async with ground(stage.folder, grace_s=GRACE_S) as here:
        for name in itertools.chain(LIVE, *ended.values()):
            here.add_account(name)
        here.add_account(AGEING)
        here.provider.told_life_s = dict.fromkeys(itertools.chain(*ended.values()), ENDED_S)
        here.provider.told_life_s[AGEING] = int(len(kinds) * (each_s + REFUSED_S) * 1.2) + 60
        async with here.serve() as proxy, AsyncExitStack() as stack:
            await here.sign_in_all(proxy, (*LIVE, AGEING))
            watch, load = Watch(proxy), Load(here.world.local.imap)
            standing = [await stack.enter_async_context(Standing.at(here.world.local.imap, LIVE[0]))
                        for _ in range(SESSIONS)]  # fmt: skip
            before = (await load.run(stage.effort(30.0, 3.0), LIVE)).live
            during = Load(here.world.local.imap)
            for kind in kinds:
                await here.sign_in_all(proxy, ended[kind.name])
                await asyncio.sleep(ENDED_S)
                await _bears(stage, here, during, kind, ended[kind.name], each_s)
            await _heals(stage, here, list(itertools.chain(*ended.values())), kinds[-1].retry_after_s or 0)
            failures = [failure for one in standing for failure in one.failures]
            stage.figure("commands in sessions that stood", sum(one.answered for one in standing), at_least=SESSIONS)
            stage.figure("of these failed", len(failures), exactly=0)
            stage.figure("authorizations that the provider revoked", here.provider.revoked_families, exactly=0)
            judge(stage, before, during.live)
            watch.judge_log(stage)


async def _bears(stage: Stage, here: Ground, load: Load, kind: Trouble, ended: Sequence[str], seconds: float) -> None:
    """One kind of trouble."""
    here.provider.asked.clear()
    with here.provider.mood(kind.makes):
        began_s = time.monotonic()
        outcome = await load.run(seconds, (*LIVE, AGEING), ended, patience_s=stage.effort(REFUSED_S, 1.0))
        took_s = time.monotonic() - began_s
    asked = here.provider.asked
    stage.say(f"{kind.name}: {asked.total()} requests in {took_s:.0f} s, {len(outcome.refusals)} logins refused")
    odd = [told for told in outcome.refusals if REFUSED not in told.text]
    for told in odd[:3]:
        stage.say(f"{kind.name}: {told.text}")
    stage.figure(f"{kind.name}: refused, but not for a while", len(odd), exactly=0)
    stage.figure(f"{kind.name}: logins without a token that were let in", outcome.let_in, exactly=0)
    if kind.retry_after_s is None:
        most = MAX_REQUESTS * (math.floor(took_s / WINDOW_S) + 1)
        text = f"{kind.name}: requests for one account in {took_s:.0f} s"
        stage.figure(text, max(asked.values(), default=0), at_least=1, at_most=most)
        slowest_ms = max((told.took_ms for told in outcome.refusals), default=0.0)
        stage.figure(f"{kind.name}: the slowest refusal", slowest_ms / 1000, "s", at_most=REFUSED_S, timing=True)
    else:
        # Those that had asked before the first answer came, and then one each time.
        most = EACH + 1 + math.ceil(took_s / kind.retry_after_s)
        text = f"{kind.name}: requests in {took_s:.0f} s, Retry-After being {kind.retry_after_s} s"
        stage.figure(text, asked.total(), at_least=1, at_most=most)
    if kind.quick:
        median_ms = outcome.refusal_ms(50)
        stage.figure(f"{kind.name}: refusals, median", median_ms, "ms", at_most=QUICK_MS, timing=True)


async def _heals(stage: Stage, here: Ground, users: Sequence[str], retry_after_s: int) -> None:
    """The provider is well again; when does the last account get in?"""
    began_s, left, failures = time.monotonic(), set(users), Load(here.world.local.imap)
    limit_s = max(WINDOW_S, retry_after_s) + 2.0
    while left and time.monotonic() - began_s < 2 * limit_s:
        for user in sorted(left):
            if await failures.login(user) is None:
                left.discard(user)
        await asyncio.sleep(LOOK_S)
    healed_s = math.inf if left else time.monotonic() - began_s
    stage.figure("all accounts get in, after the trouble ended, within", healed_s, "s", at_most=limit_s)
