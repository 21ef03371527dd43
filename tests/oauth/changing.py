"""Processes that are killed while they change an account's passwords: ``python -m tests.oauth.changing FOLDER ROUNDS``.

The account has two passwords, `first` and `extra`. It prints, for each kill, what was done and which
passwords open the account then.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from emailproxy.errors import WrongPassword
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.flow import TokenSet
from emailproxy.oauth.keyring import Keyring
from emailproxy.oauth.passwords import NewSlot, Passwords
from emailproxy.oauth.records import opened, sealed
from emailproxy.secret import Secret
from emailproxy.store import slots
from emailproxy.store.base import Record
from emailproxy.store.ini import IniStore
from emailproxy.store.pending import IniPendingStore
from tests.oauth.world import ADA, CHEAP, PASSWORD
from tests.store.child import kill_at

EXTRA, NEW = Secret("the extra password"), Secret("the new password")
KNOWN = {"first": PASSWORD, "extra": EXTRA, "new": NEW}
TOKENS = TokenSet(Secret("access"), 1_900_000_000, Secret("refresh"))
MAX_STEPS = 200

Change = Callable[[Passwords], Awaitable[object]]
CHANGES: dict[str, Change] = {
    "add": lambda passwords: passwords.add(ADA, PASSWORD, NewSlot("new", NEW)),
    "change": lambda passwords: passwords.change(ADA, PASSWORD, NEW),
    "remove": lambda passwords: passwords.remove(ADA, "extra"),
}


async def changed(folder: Path, change: Change, step: int | None) -> None:
    """Makes the change, and dies at that one of its system calls that Python audits."""
    records, pending = IniStore(folder), IniPendingStore(folder)
    keyring = Keyring(records, clock=Clock(), cost=CHEAP)
    passwords = Passwords(records, keyring, lambda _: None, discard=pending.discard)
    if step is not None:
        kill_at(step)
    await change(passwords)
    os._exit(0)


async def opening(folder: Path) -> list[str]:
    """The passwords that open the account, and what it holds."""
    records = IniStore(folder)
    record = await records.load(ADA)
    records.close()
    assert record is not None
    found = []
    for name, password in KNOWN.items():
        try:
            key, _ = slots.unlock(record.lockbox, ADA, password)
        except WrongPassword:
            continue
        tokens = opened(record, key)
        assert tokens is not None
        assert tokens.refresh_token == TOKENS.refresh_token
        found.append(name)
    assert len(found) == len(record.lockbox.slots)
    return found


@contextmanager
def as_it_was(path: Path) -> Iterator[None]:
    before = path.read_bytes()
    yield
    path.write_bytes(before)


def killed_at_each_step(folder: Path, path: Path, name: str) -> None:
    for step in range(MAX_STEPS):
        with as_it_was(path):
            pid = os.fork()
            if pid == 0:
                asyncio.run(changed(folder, CHANGES[name], step))
            if os.waitpid(pid, 0)[1] == 0:
                return
            print(name, *asyncio.run(opening(folder)))
    raise AssertionError(f"{name} has more than {MAX_STEPS} steps")


def killed_at_random(folder: Path, path: Path, name: str, rounds: int) -> None:
    chance, longest_s = random.Random(7), 0.0  # noqa: S311 - moments, not keys
    for number in range(rounds + 1):
        with as_it_was(path):
            begun_s = time.perf_counter()
            pid = os.fork()
            if pid == 0:
                asyncio.run(changed(folder, CHANGES[name], None))
            if number:  # the first tells how long it takes
                while time.perf_counter() < begun_s + chance.random() * longest_s:
                    pass
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            longest_s = max(longest_s, time.perf_counter() - begun_s)
            print(name, *asyncio.run(opening(folder)))


async def set_up(folder: Path) -> None:
    lockbox, _ = slots.new_lockbox(ADA, PASSWORD, now_s=1, cost=CHEAP)
    records, pending = IniStore(folder), IniPendingStore(folder)
    async with records.locked(ADA):
        await records.save(sealed(Record(ADA, lockbox), TOKENS, now_s=1))
    keyring = Keyring(records, clock=Clock(), cost=CHEAP)
    await Passwords(records, keyring, lambda _: None, discard=pending.discard).add(
        ADA, PASSWORD, NewSlot("extra", EXTRA)
    )
    await keyring.close()
    pending.close()
    records.close()


def main(folder: Path, rounds: int) -> None:
    asyncio.run(set_up(folder))
    [path] = (folder / "accounts").glob("*.ini")
    for name in CHANGES:
        killed_at_each_step(folder, path, name)
        killed_at_random(folder, path, name, rounds)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
