"""The state folder under several processes, kill -9, failing writes and other users."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emailproxy.store import files
from emailproxy.store.ini import IniStore
from emailproxy.store.pending import IniPendingStore
from tests.store.samples import REPOSITORY, pending, record

ADA = "ada@example.org"
SERVICE = 12_345  # a user that owns nothing here
OTHER = 23_456
KILLS = 60
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be other users")


def start(verb: str, folder: Path, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.store.child", verb, str(folder), *map(str, args)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(child: subprocess.Popen[str], word: str = "") -> list[str]:
    out, _ = child.communicate(word, timeout=90)
    assert child.returncode == 0
    return out.splitlines()


def together(children: list[subprocess.Popen[str]]) -> list[list[str]]:
    """Lets them all go at the same time."""
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    return [finish(child) for child in children]


async def test_two_processes_lose_no_update(store: IniStore, state: Path) -> None:
    await store.save(record(ADA, 0))
    together([start("count", state, 40) for _ in range(2)])
    kept = await store.load(ADA)
    assert kept is not None
    assert kept.generation == 80


async def test_a_killed_holder_holds_nothing(store: IniStore, state: Path) -> None:
    await store.save(record(ADA))
    child = start("hold", state)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.kill()
    child.communicate(timeout=30)
    async with store.locked(ADA) as locked:
        assert locked is not None


def test_kill_9_leaves_the_old_or_the_new_generation(state: Path) -> None:
    *kills, last = finish(start("die", state, KILLS))
    assert last.startswith("steps ")
    assert int(last.split()[1]) >= 4  # the temporary, the rename and the folder at the least
    assert len(kills) >= KILLS + 4
    for kill in kills:
        _, acknowledged, found = kill.split()
        assert int(found) - int(acknowledged) in (0, 1), kill


async def test_leftovers_of_the_killed_are_cleared(state: Path) -> None:
    finish(start("die", state, 0))
    left = list((state / "accounts").glob(".*.tmp"))
    assert left  # some were killed between the temporary and the rename
    store = IniStore(state, now=lambda: max(path.stat().st_mtime for path in left) + files.STALE_S + 1)
    store.prepare()
    assert [path.name for path in (state / "accounts").iterdir()] == [f"{ADA}.ini"]
    store.close()


def test_a_full_disk_leaves_the_old_file(state: Path) -> None:
    finish(start("die", state, 0))
    accounts = state / "accounts"
    for left in accounts.glob(".*"):
        left.unlink()
    before = {path.name: path.read_bytes() for path in accounts.iterdir()}
    for complaint in finish(start("save_with_limit", state, 100)):
        assert complaint.startswith(f"StateError: cannot write {accounts}/{ADA}.ini: File too large; ")
    assert {path.name: path.read_bytes() for path in accounts.iterdir()} == before


def test_of_many_processes_one_claims(state: Path) -> None:
    states = [f"state {number}" for number in range(20)]

    async def put() -> None:
        store = IniPendingStore(state, now=lambda: 0)
        for number, name in enumerate(states):
            await store.put(pending(name, f"user{number}@example.org", created_s=4_000_000_000))
        store.close()

    asyncio.run(put())
    claimed = together([start("claim", state, *states) for _ in range(5)])
    assert sorted(state for process in claimed for state in process) == sorted(states)
    assert not list((state / "pending").iterdir())


# ---- users


def owners(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in (folder, *folder.rglob("*"))}


@ROOT_ONLY
async def test_what_root_writes_stays_the_services(reachable: Path) -> None:
    state = reachable / "state"
    state.mkdir(0o700)
    os.chown(state, SERVICE, SERVICE)
    store, consents = IniStore(state), IniPendingStore(state)
    async with store.locked(ADA):
        await store.save(record(ADA))
    await consents.put(pending("state", created_s=4_000_000_000))
    assert owners(state) == {SERVICE}
    assert len(list(state.rglob("*"))) == 9
    assert finish(start("as_user", state, SERVICE)) == ["1", "saved"]
    assert await consents.claim("state") is not None
    store.close()
    consents.close()


@ROOT_ONLY
async def test_root_keeps_the_owner_of_the_file_that_it_replaces(store: IniStore, state: Path) -> None:
    await store.save(record(ADA))
    path = state / "accounts" / f"{ADA}.ini"
    os.chown(path, SERVICE, OTHER)
    await store.save(record(ADA, 2))
    assert (path.stat().st_uid, path.stat().st_gid) == (SERVICE, OTHER)


@ROOT_ONLY
async def test_a_file_of_another_user_is_refused(reachable: Path) -> None:
    state = reachable / "state"
    state.mkdir(0o700)
    os.chown(state, SERVICE, SERVICE)
    store = IniStore(state)
    await store.save(record(ADA))
    path = state / "accounts" / f"{ADA}.ini"
    os.chown(path, 0, 0)
    before = path.read_bytes()
    for complaint in finish(start("as_user", state, SERVICE)):
        assert complaint.startswith(f"StateExposed: {path} belongs to another user (uid 0, this is uid {SERVICE}); ")
        assert f"chown {SERVICE} {path}" in complaint
    assert path.read_bytes() == before
    store.close()


@ROOT_ONLY
async def test_a_folder_of_another_user_is_refused(reachable: Path) -> None:
    state = reachable / "state"
    state.mkdir(0o700)
    os.chown(state, OTHER, OTHER)
    for complaint in finish(start("as_user", state, SERVICE)):
        assert complaint.startswith(f"StateExposed: {state} belongs to another user (uid {OTHER}, ")


@ROOT_ONLY
async def test_a_folder_that_takes_no_files_leaves_the_old_one(reachable: Path) -> None:
    state = reachable / "state"
    state.mkdir(0o700)
    os.chown(state, SERVICE, SERVICE)
    store = IniStore(state)
    async with store.locked(ADA):
        await store.save(record(ADA))
    (state / "accounts").chmod(0o500)
    before = (state / "accounts" / f"{ADA}.ini").read_bytes()
    loaded, saved = finish(start("as_user", state, SERVICE))
    assert loaded == "1"
    assert saved.startswith(f"StateError: cannot write {state}/accounts/{ADA}.ini: Permission denied; ")
    assert [path.name for path in (state / "accounts").iterdir()] == [f"{ADA}.ini"]
    assert (state / "accounts" / f"{ADA}.ini").read_bytes() == before
    store.close()
