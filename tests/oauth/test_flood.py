"""A flood of wrong passwords.

What is bounded, whatever clients do: key derivations under way (`KDF_THREADS`, two), logins that wait for one
(`turns.MAX_WAITING`; of one address `MAX_OF_SITE`, of one that was wrong lately `MAX_OF_SUSPECT`), what is remembered
(four times `throttle.MAX_COUNTED`, and `warm.MAX_WRONG`), and how often an address is tried at all (`throttle`).
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from emailproxy.config.model import KIB, MIB
from emailproxy.errors import LoginRefused
from emailproxy.oauth.passwords import NewSlot
from emailproxy.oauth.throttle import MAX_COUNTED
from emailproxy.oauth.turns import MAX_WAITING
from emailproxy.secret import Secret
from emailproxy.store import slots
from emailproxy.store.slots import Cost
from tests.oauth.world import ADA, PASSWORD, Process, World

ADDRESSES = [f"198.51.100.{number}" for number in range(50)]
WAVES, EACH = 200, 10  # logins at once of each address, 500 of all: as many as `max_unauthenticated` lets in
DEVICES = (0, 1, 60, 120, 199)  # in these waves the owner logs in, each time with a device that was not there before
TRACED = (174, 179, 199)  # the waves from which memory is traced (that is slow), and after which it is compared
DEAR = Cost(4 * MIB // KIB, 2)  # some 10 ms: all 100,000 would take a quarter of an hour


async def guess(process: Process, wave: int, address: str, number: int) -> str:
    try:
        await process.login(password=Secret(f"guess {wave} {number} {address}"), address=address, session=address)
    except LoginRefused as error:
        return type(error).__name__
    return "let in"


async def owners_login_s(process: Process, wave: int) -> tuple[float, float]:
    """How long it takes by the clock, and of it what this process computes: others may use the machine, too."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    await process.login(password=device(wave), address="203.0.113.51", session=f"owner {wave}")
    return time.perf_counter() - began_s, time.process_time() - began_cpu_s


def device(wave: int) -> Secret:
    return Secret(f"the password of device {wave}")


async def test_the_owner_logs_in_within_a_second_amid_100_000_wrong_logins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    async with World.at(tmp_path) as world:
        world.account()
        first = await world.process(cost=DEAR)
        await world.signed_in(first)
        for wave in DEVICES:
            await first.broker.passwords.add(ADA, PASSWORD, NewSlot(f"device {wave}", device(wave)))
        process = await world.process(cost=DEAR)
        derivations = counted(monkeypatch)
        outcomes: Counter[str] = Counter()
        owner_s, most_waiting, sizes = [], 0, []
        for wave in range(WAVES):
            if wave == TRACED[0]:
                tracemalloc.start()
            guesses = [
                asyncio.create_task(guess(process, wave, address, number))
                for number in range(EACH)
                for address in ADDRESSES
            ]
            await asyncio.sleep(0)
            if wave in DEVICES:
                owner_s.append(await owners_login_s(process, wave))
            most_waiting = max(most_waiting, len(process.broker._keyring._turns))
            outcomes.update(await asyncio.gather(*guesses))
            world.turned.turn(1)
            assert len(derivations) < 20 * len(ADDRESSES)
            if wave in TRACED[1:]:
                gc.collect()  # tasks and their exceptions hold each other
                sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        slowest_s, cpu_s = max(owner_s)
        record_property("slowest_s", slowest_s)
        assert outcomes.total() == 100_000
        assert set(outcomes) == {"WrongPassword", "TooManyLogins"}
        assert cpu_s < 1.0
        assert slowest_s < 1.0 or slowest_s < 30 * cpu_s, "what it waited for was no work"
        assert most_waiting <= MAX_WAITING
        assert len(process.broker._keyring._throttle) <= 4 * MAX_COUNTED
        assert sizes[1] - sizes[0] < 64 * KIB, "6 octets a login, and not what each brings"


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every unlocking from now on."""
    derivations: list[int] = []
    unlock = slots.unlock

    def noted(*args):  # type: ignore[no-untyped-def]
        derivations.append(1)
        return unlock(*args)

    monkeypatch.setattr(slots, "unlock", noted)
    return derivations
