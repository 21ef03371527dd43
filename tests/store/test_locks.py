"""Locks between tasks and between stores of one process."""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from emailproxy.errors import StateDamaged, StateError
from emailproxy.store.ini import IniStore
from emailproxy.store.threads import FileThreads
from tests.store.samples import record

ADA = "ada@example.org"
EVE = "eve@example.org"


async def test_tasks_take_turns(store: IniStore) -> None:
    await store.save(record(ADA, 0))

    async def add() -> None:
        async with store.locked(ADA) as locked:
            assert locked is not None
            await store.save(replace(locked, generation=locked.generation + 1))

    await asyncio.gather(*(add() for _ in range(20)))
    kept = await store.load(ADA)
    assert kept is not None
    assert kept.generation == 20


async def test_two_stores_of_a_process_take_turns(store: IniStore, state: Path) -> None:
    other = IniStore(state)
    async with store.locked(ADA):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), other.locked(ADA):
                pytest.fail("both hold it")
        async with other.locked(EVE):
            pass
    async with other.locked(ADA):
        pass
    other.close()


@pytest.mark.parametrize("through_another_store", [False, True])
async def test_a_cancelled_waiter_holds_nothing(through_another_store: bool, store: IniStore, state: Path) -> None:
    other = IniStore(state) if through_another_store else store

    async def wait() -> None:
        async with other.locked(ADA):
            pytest.fail("got the lock")

    async with store.locked(ADA):
        waiter = asyncio.create_task(wait())
        await asyncio.wait([waiter], timeout=0.05)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    third = IniStore(state)
    for free in (store, other, third):
        async with asyncio.timeout(10), free.locked(ADA):
            pass
    third.close()
    other.close()


async def test_waiters_take_no_file_thread(store: IniStore, state: Path) -> None:
    other = IniStore(state)
    await store.save(record(EVE))
    async with store.locked(ADA):
        waiters = [asyncio.create_task(_hold_once(other, ADA)) for _ in range(5)]
        await asyncio.wait(waiters, timeout=0.05)
        async with asyncio.timeout(10):
            assert await other.load(EVE) is not None
    await asyncio.gather(*waiters)
    other.close()


async def _hold_once(store: IniStore, account: str) -> None:
    async with store.locked(account):
        pass


async def test_a_lock_is_let_go_of_when_its_holder_fails(store: IniStore) -> None:
    with pytest.raises(ZeroDivisionError):
        async with store.locked(ADA):
            raise ZeroDivisionError
    async with asyncio.timeout(10), store.locked(ADA):
        pass


async def test_taking_a_lock_twice_is_an_error_and_no_deadlock(store: IniStore) -> None:
    async with store.locked(ADA):
        with pytest.raises(RuntimeError, match="already"):
            await store.remove(ADA)


async def test_a_damaged_record_leaves_its_lock_free(store: IniStore, state: Path) -> None:
    await store.save(record(ADA))
    (state / "accounts" / f"{ADA}.ini").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(StateDamaged):
            await _hold_once(store, ADA)


async def test_a_lock_file_that_cannot_be_opened_is_named(store: IniStore, state: Path) -> None:
    store.prepare()
    (state / "locks" / f"{ADA}.lock").mkdir(0o700)
    with pytest.raises(StateError, match=re.escape(f"cannot lock {state}/locks/{ADA}.lock: ")):
        await _hold_once(store, ADA)


async def test_a_cancelled_write_is_waited_for() -> None:
    threads = FileThreads()
    begun, go = threading.Event(), threading.Event()
    ended = []

    def work() -> None:
        begun.set()
        assert go.wait(30)
        ended.append(True)

    task = asyncio.create_task(threads.run(work))
    await asyncio.to_thread(begun.wait, 30)
    for _ in range(2):
        task.cancel()
        await asyncio.wait([task], timeout=0.02)
        assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended
    threads.close()


async def test_whether_a_lock_is_held_is_seen_without_waiting(store: IniStore, state: Path) -> None:
    other = IniStore(state)

    async def seen(by: IniStore) -> list[bool]:
        return [one.is_locked for one in await by.survey([ADA, EVE])]

    assert await seen(store) == [False, False]
    assert not state.exists()  # looking makes nothing
    async with other.locked(ADA):
        assert await seen(store) == await seen(other) == [True, False]
    assert await seen(store) == [False, False]
    async with asyncio.timeout(10), other.locked(ADA):
        pass
    other.close()


async def test_a_lock_file_that_cannot_be_looked_at_is_named(store: IniStore, state: Path) -> None:
    store.prepare()
    (state / "locks" / f"{ADA}.lock").mkdir(0o700)
    with pytest.raises(StateError, match=re.escape(f"cannot lock {state}/locks/{ADA}.lock: ")):
        raise (await store.survey([ADA]))[0].error or AssertionError
