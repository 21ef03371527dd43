"""What the tests run in processes of their own: ``python -m tests.store.child VERB FOLDER ...``.

It prints facts for the test to judge. `as_user` imports everything first, as another user may not read the source.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from emailproxy.errors import StateError
from emailproxy.store.ini import IniStore
from emailproxy.store.pending import IniPendingStore
from tests.store import samples

ACCOUNT = "ada@example.org"
MAX_STEPS = 200


async def count(folder: Path, times: str) -> None:
    """Adds one to the generation, so many times."""
    store = IniStore(folder)
    _meet()
    for _ in range(int(times)):
        async with store.locked(ACCOUNT) as record:
            assert record is not None
            await store.save(replace(record, generation=record.generation + 1))
    store.close()


async def hold(folder: Path) -> None:
    """Holds the account's lock until it is killed."""
    async with IniStore(folder).locked(ACCOUNT):
        _meet()


async def claim(folder: Path, *states: str) -> None:
    """Prints the states that this process got."""
    store = IniPendingStore(folder)
    _meet()
    for state in states:
        if await store.claim(state) is not None:
            print(state)
    store.close()


async def save_with_limit(folder: Path, octets: str) -> None:
    """Saves where no file may grow beyond so many octets, as on a full disk; prints the complaint."""
    store = IniStore(folder)
    record = await store.load(ACCOUNT)
    assert record is not None
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(octets), int(octets)))
    print(await _attempt(store, record.generation + 1))
    print(await _attempt(store, record.generation + 1))
    store.close()


async def as_user(folder: Path, uid: str) -> None:
    """Loads and saves as another user; prints the generation read or the complaint, then the save's."""
    store = IniStore(folder)
    samples.record(ACCOUNT)  # what is imported when it is first used
    async with store.locked(ACCOUNT):
        pass
    os.setgid(int(uid))
    os.setuid(int(uid))
    print(await _attempt(store, None))
    print(await _attempt(store, 2))
    store.close()


async def _attempt(store: IniStore, generation: int | None) -> str:
    try:
        if generation is None:
            record = await store.load(ACCOUNT)
            return "none" if record is None else str(record.generation)
        async with store.locked(ACCOUNT):
            await store.save(samples.record(ACCOUNT, generation))
    except StateError as error:
        return f"{type(error).__name__}: {error}"
    return "saved"


def _meet() -> None:
    """Tells the test that we are here, and waits for its word."""
    print("ready", flush=True)
    sys.stdin.readline()


def die(folder: Path, rounds: str) -> None:
    """Kills savers: at random moments, and at each system call of one save that Python audits.

    Prints the generations that were acknowledged before, and that the file holds after, each kill.
    """
    chance = random.Random(7)  # noqa: S311 - moments, not keys
    asyncio.run(_save(folder, 1, None))
    for _ in range(int(rounds)):
        _report(folder, _kill_at_random(folder, chance))
    for step in range(MAX_STEPS):
        before = _generation(folder)
        pid = os.fork()
        if pid == 0:
            asyncio.run(_save(folder, before + 1, step))
            os._exit(0)
        if os.waitpid(pid, 0)[1] == 0:
            print("steps", step)
            return
        _report(folder, before)


def _kill_at_random(folder: Path, chance: random.Random) -> int:
    """A saver is killed after one to four saves; returns the last generation that it acknowledged."""
    reading, writing = os.pipe()
    first = _generation(folder) + 1
    pid = os.fork()
    if pid == 0:
        for generation in range(first, first + 1_000_000):
            asyncio.run(_save(folder, generation, None))
            os.write(writing, b".")
    os.close(writing)
    saves = len(os.read(reading, 1)) + sum(len(os.read(reading, 1)) for _ in range(chance.randrange(4)))
    until = time.perf_counter() + chance.random() * 0.004
    while time.perf_counter() < until:
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while more := os.read(reading, 1024):
        saves += len(more)
    os.close(reading)
    return first + saves - 1


async def _save(folder: Path, generation: int, die_at: int | None) -> None:
    store = IniStore(folder)
    async with store.locked(ACCOUNT):
        record = replace(samples.record(ACCOUNT, 0), generation=generation, scope=f"{generation} " * 500)
        if die_at is not None:
            kill_at(die_at)
        await store.save(record)
    store.close()


def kill_at(step: int) -> None:
    """Kills this process at that one of its system calls from now on that Python audits."""
    calls = 0

    def audit(event: str, _: object) -> None:
        nonlocal calls
        if event in ("open", "os.rename", "os.remove", "os.chown", "os.chmod", "os.listdir"):
            calls += 1
            if calls > step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)


def _generation(folder: Path) -> int:
    async def load() -> int:
        store = IniStore(folder)
        record = await store.load(ACCOUNT)
        store.close()
        assert record is not None
        assert record.scope == f"{record.generation} " * 500
        return record.generation

    return asyncio.run(load())


def _report(folder: Path, before: int) -> None:
    print("killed", before, _generation(folder))


VERBS = {"count": count, "hold": hold, "claim": claim, "save_with_limit": save_with_limit, "as_user": as_user}

if __name__ == "__main__":
    verb, folder, *rest = sys.argv[1:]
    if verb == "die":
        die(Path(folder), *rest)
    else:
        asyncio.run(VERBS[verb](Path(folder), *rest))
