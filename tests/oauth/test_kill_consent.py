"""Processes that are killed while they complete a consent, and what the next one finds.

A redirect's consent is claimed (its file removed) before the code is sent, and the tokens are saved last. The code
must not be sent twice (RFC 6749 section 4.1.2): a provider that sees it again revokes what it granted, and a person
who reloads the page sends it again. Were the claim last, a reload after a kill between save and claim would void
tokens that were saved. So a kill between claim and save costs a person one more click on a new link, and nothing that
the account had. A device code is claimed last: polling sends it many times (RFC 8628 section 3.4), and no browser does.
"""

from __future__ import annotations

import asyncio
import os
import random
import stat
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import chain
from pathlib import Path

import pytest
from aiohttp import web

from emailproxy.config.model import FlowName
from emailproxy.errors import ConsentRequired, ProviderRefused
from emailproxy.oauth.waiting import Waiting
from emailproxy.store import codec
from emailproxy.store.base import Pending, Record
from tests.fakes.provider import FakeProvider
from tests.oauth.forking import Forks, end, forks
from tests.oauth.world import ADA, PASSWORD, Process, Seen, World, browse, until

ROUNDS = 50  # of each kind of account
MEASURED = 3  # of these, the first, are killed after the browser's page only: they tell how long the others have
BEYOND = 1.2  # of what those took: some are killed after the end

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

had = pytest.mark.parametrize("had", [False, True], ids=["first", "again"])
"""Whether the account has tokens already."""

Browsing = asyncio.Task[Seen]
Moment = Callable[[World, Browsing], Awaitable[None]]


class Outcome(Enum):
    SIGNED_IN = "signed in"
    WAITS = "the consent waits, and its code was not sent"
    LOST = "the consent is used up, and no tokens came of it"


@pytest.fixture(autouse=True)
def no_trust_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """No provider here speaks TLS, and reading the system's takes 40 ms of each process."""
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)


# ---- moments


@dataclass
class Withheld:
    """The honest reply is made, and does not arrive."""

    made: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, provider: FakeProvider, request: web.Request) -> web.StreamResponse:
        reply = await provider.honest_answer(request)
        self.made.set()
        await provider.stopping.wait()
        return reply


async def at_once(_world: World, _browsing: Browsing) -> None:
    """Before the browser has sent anything."""


async def when_redeemed(world: World, _browsing: Browsing) -> None:
    """The provider has redeemed the code, and its reply is on the way."""
    withheld = Withheld()
    world.provider.next(withheld)
    await withheld.made.wait()


async def after_page(_world: World, browsing: Browsing) -> None:
    await browsing


def after(seconds: float) -> Moment:
    async def wait(_world: World, _browsing: Browsing) -> None:
        await asyncio.sleep(seconds)

    return wait


# ---- one round


@dataclass(frozen=True)
class Killed:
    waiting: Waiting
    """The consent that was about to be completed."""
    redirect: str
    """Where the provider sent the browser."""
    took_s: float
    generation: int
    """Of the record before."""


@asynccontextmanager
async def restarted(world: World) -> AsyncIterator[Process]:
    """A process that knows nothing but what is in the folder."""
    async with AsyncExitStack() as stack:
        yield await replace(world, stack=stack).process(wait_s=0)


@asynccontextmanager
async def consenting(world: World, *, had: bool) -> AsyncIterator[Forks]:
    """Forks of a process that completes Ada's consents."""
    account = world.accounts[ADA]
    if had:
        async with restarted(world) as process:
            await signed_in(world, process)
    made = (world.folder, account.flow, account.token_url, account.permission_url, world.port)
    async with forks("tests.oauth.consenting", *made) as forked:
        yield forked


async def begun(process: Process) -> Waiting:
    waiting = await process.broker.sign_in(ADA, PASSWORD)
    assert waiting is not None
    return waiting


async def killed(world: World, made: Forks, moment: Moment) -> Killed:
    async with restarted(world) as process:
        waiting = await begun(process)
    redirect = (await browse(waiting.url, follow=False)).headers["Location"]
    number, begun_s = await made.one(), time.perf_counter()
    browsing = asyncio.create_task(browse(redirect))
    await moment(world, browsing)
    took_s = time.perf_counter() - begun_s
    await end(number)
    browsing.cancel()
    await asyncio.gather(browsing, return_exceptions=True)
    return Killed(waiting, redirect, took_s, waiting.generation)


async def found(world: World, process: Process, before: Killed) -> Outcome:
    record, pending = await unharmed(world, process)
    if record is not None and record.generation > before.generation:
        assert pending is None
        return Outcome.SIGNED_IN
    assert (record is not None) is (before.generation > 0)
    return Outcome.LOST if pending is None else Outcome.WAITS


async def unharmed(world: World, process: Process) -> tuple[Record | None, Pending | None]:
    """Whole files, no lock that is held, and an account that works, if it has tokens."""
    check_files(world.folder)
    assert not (await process.records.survey([ADA]))[0].is_locked
    record, pending = await process.records.load(ADA), await process.pending.by_account(ADA)
    if record is not None:
        assert (record.needs_sign_in, record.last_error) == (False, "")
        await works(world, process)
    return record, pending


def check_files(folder: Path) -> None:
    for path in folder.rglob("*.*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        if path.suffix == ".ini":
            parse = codec.parse_record if path.parent.name == "accounts" else codec.parse_pending
            parse(path.read_bytes())


async def works(world: World, process: Process) -> None:
    """The provider takes the account's access token and its refresh token."""
    world.provider.verify(await process.login())
    world.provider.verify(await process.login(rejected="no"))


async def mended(world: World, process: Process, before: Killed, outcome: Outcome) -> None:
    """A person reloads the page, or logs in and clicks on the link."""
    if before.generation == 0 and outcome is not Outcome.SIGNED_IN:
        with pytest.raises(ConsentRequired) as required:
            await process.login()
        assert (required.value.url == before.waiting.url) is (outcome is Outcome.WAITS)
    await process.listener.ensure(before.waiting.account)
    reloaded = await browse(before.redirect)
    assert (reloaded.status == 200) is (outcome is Outcome.WAITS), reloaded.text
    if before.generation == 0 and outcome is Outcome.LOST:
        assert (await browse(required.value.link)).status == 200
    world.provider.verify(await process.login())


async def forgotten(world: World, process: Process) -> None:
    await process.records.remove(ADA)
    await process.consents.discard(ADA)


SURE: Sequence[tuple[Moment, Outcome]] = (
    *[(after_page, Outcome.SIGNED_IN)] * MEASURED,
    (at_once, Outcome.WAITS),
    (when_redeemed, Outcome.LOST),
)
"""The first rounds: moments that are not left to chance, and what comes of them."""


def at_random(chance: random.Random, took_s: Sequence[float]) -> Iterator[Moment]:
    """A moment in each part of the time that a whole sign-in takes, and somewhat beyond."""
    parts = ROUNDS - len(SURE)
    for part in range(parts):
        yield after((part + chance.random()) / parts * BEYOND * statistics.median(took_s[:MEASURED]))


@had
async def test_a_process_that_is_killed_around_a_consent_harms_no_account(
    tmp_path: Path, had: bool, record_property: Callable[[str, object], None]
) -> None:
    took_s: list[float] = []
    outcomes: list[Outcome] = []
    moments = (moment for moment, _ in SURE), at_random(random.Random(0), took_s)  # noqa: S311 - the same each time
    async with World.at(tmp_path / "state", grace_s=60) as world:
        world.account()
        async with consenting(world, had=had) as made:
            for moment in chain(*moments):
                before = await killed(world, made, moment)
                async with restarted(world) as process:
                    outcomes.append(await found(world, process, before))
                    await mended(world, process, before, outcomes[-1])
                    if not had:
                        await forgotten(world, process)
                took_s.append(before.took_s)
        record_property("outcomes", {outcome.name: count for outcome, count in Counter(outcomes).items()})
        assert len(outcomes) == ROUNDS
        assert outcomes[: len(SURE)] == [outcome for _, outcome in SURE]
        codes = [request.form["code"] for request in world.provider.requests if "code" in request.form]
        assert len(codes) == len(set(codes))
        assert {request.status for request in world.provider.requests} == {200}
        assert world.provider.revoked_families == 0


# ---- devices


async def signed_in(world: World, process: Process) -> None:
    """A person completes Ada's consent, by whichever flow."""
    waiting = await begun(process)
    if waiting.user_code:
        world.provider.decide(waiting.user_code)
        await until(lambda: len(world.turned.alarms) == 1)
        world.turned.turn(world.provider.interval_s)
        assert await waiting.wait()
    else:
        assert (await browse(waiting.url)).status == 200


@had
async def test_a_process_that_is_killed_when_a_device_code_was_redeemed_harms_no_account(
    tmp_path: Path, had: bool
) -> None:
    """The provider's reply is lost: the code is used up, though the consent still waits."""
    async with World.at(tmp_path / "state", grace_s=60, account=ADA) as world:
        world.account(flow=FlowName.DEVICE, permission_url=world.provider.device_url)
        async with consenting(world, had=had) as made:
            async with restarted(world) as process:
                lost = await begun(process)
            world.provider.decide(lost.user_code)
            withheld = Withheld()
            world.provider.next(withheld)
            number = await made.one()
            await withheld.made.wait()
            await end(number)
            assert world.provider.requests[-1].status == 200
        async with restarted(world) as process:
            record, pending = await unharmed(world, process)
            assert (record is not None, pending is not None) == (had, True)
            waiting = await begun(process)
            assert waiting.user_code == lost.user_code
            await until(lambda: len(world.turned.alarms) == 1)
            world.turned.turn(world.provider.interval_s)
            with pytest.raises(ProviderRefused, match="invalid_grant"):
                await waiting.wait()
        async with restarted(world) as process:
            record, pending = await unharmed(world, process)
            assert (record is not None, pending is not None) == (had, False)
            await signed_in(world, process)
            world.provider.verify(await process.login())
