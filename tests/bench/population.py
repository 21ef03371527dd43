"""A state folder with ten thousand accounts: what a start, a login and a save cost there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

from emailproxy.store.ini import IniStore
from tests.bench.accounts import Filled, fill
from tests.bench.candidate import EMAILPROXY, Candidate
from tests.bench.clients import Account, Endpoint, Imap
from tests.bench.effort import Effort
from tests.bench.launch import Launch, started
from tests.bench.logins import timed
from tests.bench.site import TOKEN_LIFETIME_S, Bench
from tests.e2e.harness.proxy import COMMAND, environment
from tests.e2e.harness.world import World, upstream, write_config

FEW, MANY, SHORT_MANY = 10, 10_000, 50
SAVES, SHORT_SAVES = 1000, 10
RECORD_OCTETS = 2200  # as a rule


@dataclass(frozen=True, slots=True)
class Population:
    """What so many accounts cost."""

    start_s: float
    login_part: float
    """A warm login's median, in parts of that with ten accounts."""
    save_p99_s: float
    by_hand_p99_s: float
    """The same octets made durable with nothing around it, in turns with the saves: what the disk takes of them."""


@dataclass(frozen=True, slots=True)
class Serving:
    """An emailproxy with its accounts."""

    imap: Endpoint
    filled: Filled
    start_s: float
    state: Path

    def log_in(self, number: int) -> float:
        """One of the accounts; seconds."""
        account = Account(self.filled.name(number), self.filled.password.reveal())
        return timed(Imap, self.imap, account)


async def population(bench: Bench, candidate: Candidate, effort: Effort) -> Population:
    """This round's; made once, whoever asks."""
    return await bench.shared("population", replace(candidate, name=EMAILPROXY), lambda: _population(bench, effort))


async def _population(bench: Bench, effort: Effort) -> Population:
    many, saves = (SHORT_MANY, SHORT_SAVES) if effort.short else (MANY, SAVES)
    async with _serving(bench, FEW) as few, _serving(bench, many) as crowded:
        took_s: tuple[list[float], list[float]] = ([], [])
        for number in range(FEW + effort.logins):
            for of, serving in zip(took_s, (few, crowded), strict=True):  # in turns: a slow second hits both
                of.append(await asyncio.to_thread(serving.log_in, number % FEW))
        with_few, with_many = (statistics.median(of[FEW:]) for of in took_s)  # the first of each account is not warm
    save_p99_s, by_hand_p99_s = await _saving(crowded, saves, bench.folder("by-hand"))
    return Population(crowded.start_s, with_many / with_few, save_p99_s, by_hand_p99_s)


@contextlib.asynccontextmanager
async def _serving(bench: Bench, accounts: int) -> AsyncIterator[Serving]:
    """One more emailproxy, started with so many accounts in its state folder, the first ten of which can log in."""
    world = bench.world_for("accounts", bench.servers)
    able: set[str] = set()

    def token(name: str) -> str:
        if len(able) == FEW:
            return "unused"
        able.add(name)
        return bench.world.provider.access_token(name, expires_in=TOKEN_LIFETIME_S)

    filled = await asyncio.to_thread(fill, world.state, accounts, token=token)
    await asyncio.to_thread(os.sync)  # or the first save would write them all
    command = (*COMMAND, "serve", "--config", _configuration(world, filled.domain))
    launch = Launch(command, environment(world.folder), world.folder, world.local.imap)
    async with started(launch) as running:
        yield Serving(Endpoint(world.local.imap), filled, running.took_s, world.state)


def _configuration(world: World, domain: str) -> Path:
    """Everybody of the domain has an account."""
    sections = {
        "emailproxy": {**world.globals, "allow_catch_all_accounts": True},
        f"IMAP-{world.local.imap}": upstream(world.server.imap.tls),
        f"@{domain}": world.account,
    }
    return write_config(world.folder / "emailproxy.ini", sections)


async def _saving(crowded: Serving, saves: int, folder: Path) -> tuple[float, float]:
    """As after a renewal: under the account's lock, over what is there, and durable. Then the same by hand."""
    store, save_s, by_hand_s = IniStore(crowded.state), [], []
    chance = random.Random(0)  # noqa: S311 - the same accounts every time
    try:
        for account in chance.choices(crowded.filled.names, k=saves):
            async with store.locked(account) as record:
                assert record is not None
                start_s = time.perf_counter()
                await store.save(replace(record, generation=record.generation + 1))
                save_s.append(time.perf_counter() - start_s)
            start_s = time.perf_counter()
            await asyncio.to_thread(_save_by_hand, folder)
            by_hand_s.append(time.perf_counter() - start_s)
    finally:
        store.close()
    return _p99(save_s), _p99(by_hand_s)


def _save_by_hand(folder: Path) -> None:
    new = folder / "new"
    with new.open("xb") as file:
        file.write(bytes(RECORD_OCTETS))
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / "old")
    whole = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(whole)
    os.close(whole)


def _p99(took_s: list[float]) -> float:
    return statistics.quantiles(took_s, n=100)[98]
