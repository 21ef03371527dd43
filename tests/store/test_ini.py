"""The folder of INI files, within one process."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emailproxy.errors import StateDamaged, StateError, StateExposed
from emailproxy.store import files
from emailproxy.store.base import TokenStore
from emailproxy.store.ini import IniStore
from tests.store.samples import record

ADA = "ada@example.org"
EVE = "eve@example.org"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_it_is_a_token_store(store: IniStore) -> None:
    kept: TokenStore = store
    assert await kept.load(ADA) is None
    assert await kept.accounts() == []
    assert not await kept.remove(ADA)


async def test_what_is_saved_is_loaded_by_any_spelling(store: IniStore, state: Path) -> None:
    await store.save(record(ADA))
    other = IniStore(state)
    assert await other.load("Ada@Example.ORG") == await store.load(ADA) is not None
    async with other.locked(ADA.upper()) as locked:
        assert locked == await store.load(ADA)
    other.close()


async def test_what_is_removed_is_gone(store: IniStore) -> None:
    await store.save(record(ADA))
    await store.save(record(EVE))
    assert await store.accounts() == [ADA, EVE]
    assert await store.remove("ADA@example.org")
    assert not await store.remove(ADA)
    assert await store.load(ADA) is None
    assert await store.accounts() == [EVE]


async def test_a_record_knows_whether_its_file_is_still_the_same(store: IniStore, state: Path) -> None:
    saved = await store.save(record(ADA))
    loaded = await store.load(ADA)
    assert loaded is not None
    assert store.is_current(saved)
    assert store.is_current(loaded)
    other = IniStore(state)
    again = await other.save(loaded)  # the same content, in a new file
    assert other.is_current(again)
    assert store.is_current(again)
    assert not store.is_current(saved)
    await other.remove(ADA)
    assert not store.is_current(again)
    other.close()


async def test_a_disk_that_fails_changes_no_record(store: IniStore, state: Path) -> None:
    saved = await store.save(record(ADA))
    (state / "accounts").rename(state / "away")
    (state / "accounts").symlink_to("accounts")  # ELOOP
    assert store.is_current(saved)


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cc",)), min_size=1, max_size=250))
def test_any_name_keeps_its_record(name: str) -> None:
    kept = record(name.casefold())

    async def round_trip(folder: Path) -> None:
        store = IniStore(folder)
        await store.save(kept)
        assert await store.load(name) == kept
        assert await store.accounts() == [name.casefold()]
        assert await store.remove(name)
        store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(round_trip(Path(folder) / "state"))


async def test_a_forged_name_touches_no_other_file(store: IniStore, state: Path) -> None:
    await store.save(record(ADA))
    before = contents(state / "accounts")
    for name in ("a@b]\n[SMTP-25", "../accounts/ada@example.org", f"{ADA}.ini", "/etc/passwd", ADA + "\0"):
        assert await store.load(name) is None
        await store.save(record(name))
        assert await store.load(name) is not None
        assert await store.remove(name)
    assert contents(state / "accounts") == before
    assert {path.name for path in state.iterdir()} == {"accounts", "locks"}


# ---- modes


async def test_files_and_folders_are_private_from_the_first_byte(state: Path) -> None:
    made: list[int] = []
    real_open = os.open

    def watched_open(path: str, flags: int, mode: int = 0o777) -> int:
        descriptor = real_open(path, flags, mode)
        if flags & os.O_CREAT:
            made.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    old = os.umask(0)
    try:
        store = IniStore(state)
        store.prepare()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", watched_open)
            async with store.locked(ADA):
                await store.save(record(ADA))
                await store.save(record(ADA, 2))
        store.close()
    finally:
        os.umask(old)
    assert len(made) >= 3
    assert set(made) == {0o600}
    folders = [state.parent, state, *(state / part for part in ("accounts", "locks", "pending"))]
    assert [mode(folder) for folder in folders] == [0o700] * 5
    assert [mode(path) for path in state.rglob("*") if path.is_file()] == [0o600] * 2


async def test_other_methods_do_without_prepare(store: IniStore, state: Path) -> None:
    await store.save(record(ADA))
    assert [mode(folder) for folder in (state.parent, state, state / "accounts")] == [0o700] * 3


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o644, 0o677])
async def test_a_file_that_others_may_use_is_refused_for_that_account_only(
    bits: int, store: IniStore, state: Path
) -> None:
    await store.save(record(ADA))
    await store.save(record(EVE))
    path = state / "accounts" / f"{ADA}.ini"
    path.chmod(bits)
    before = path.read_bytes()
    for attempt in (lambda: store.load(ADA), lambda: store.save(record(ADA, 2))):
        with pytest.raises(StateExposed, match=re.escape(f"run 'chmod 600 {path}'")):
            await attempt()
    with pytest.raises(StateExposed):
        async with store.locked(ADA):
            pass
    assert (path.read_bytes(), mode(path)) == (before, bits)
    assert await store.load(EVE) is not None
    assert await store.accounts() == [ADA, EVE]
    path.chmod(0o600)
    assert await store.load(ADA) is not None


@pytest.mark.parametrize("bits", [0o755, 0o750, 0o720, 0o702, 0o777])
@pytest.mark.parametrize("part", [".", "accounts"])
async def test_a_folder_that_others_may_use_is_refused(bits: int, part: str, store: IniStore, state: Path) -> None:
    await store.save(record(ADA))
    folder = state / part
    folder.chmod(bits)
    for attempt in (lambda: store.load(ADA), lambda: store.save(record(ADA, 2)), store.accounts):
        with pytest.raises(StateExposed, match=re.escape(f"run 'chmod 700 {folder}'")):
            await attempt()
    with pytest.raises(StateExposed):
        store.prepare()
    assert mode(folder) == bits


def _link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir(0o700)


@pytest.mark.parametrize("put", [_link, _dangling, _fifo, _folder])
async def test_what_is_not_a_regular_file_is_refused(put: Callable[[Path], None], store: IniStore, state: Path) -> None:
    await store.save(record(ADA))
    path = state / "accounts" / f"{ADA}.ini"
    put(path)
    kind = stat.S_IFMT(path.lstat().st_mode)
    for attempt in (lambda: store.load(ADA), lambda: store.save(record(ADA, 2))):
        with pytest.raises(StateExposed, match="is not a regular file"):
            await attempt()
    assert stat.S_IFMT(path.lstat().st_mode) == kind


async def test_a_file_in_the_folders_place_is_refused(store: IniStore, state: Path) -> None:
    state.parent.mkdir()
    state.write_bytes(b"")
    with pytest.raises(StateExposed, match="is not a folder"):
        await store.save(record(ADA))


# ---- damage


@pytest.mark.parametrize(
    ("pattern", "replacement", "what"),
    [
        (rb"(?s)\A.*\Z", b"", "cut off"),
        (rb"(?s)\[end\].*", b"", "cut off"),
        (rb"memory_kib = \d+", b"memory_kib = 4000000000", "4000000000 Argon2id memory_kib"),
        (rb"\[kdf\]", b"[SMTP-25]", "section .kdf. is missing"),
        (rb"(?<=\n)name = .*", b"name = ZXZl", "it is another account's"),
        (rb"(?s)\Z", b"#" * files.MAX_FILE, "more than 1048576 octets"),
    ],
)
async def test_a_damaged_file_is_refused_and_left_alone(
    pattern: bytes, replacement: bytes, what: str, store: IniStore, state: Path
) -> None:
    await store.save(record(ADA))
    await store.save(record(EVE))
    path = state / "accounts" / f"{ADA}.ini"
    damaged = re.sub(pattern, replacement, path.read_bytes(), count=1)
    path.write_bytes(damaged)
    for attempt in (lambda: store.load(ADA), lambda: store.save(record(ADA, 2))):
        with pytest.raises(StateDamaged, match=what) as refused:
            await attempt()
        assert str(refused.value).startswith(f"{path} is damaged")
        assert f"'emailproxy accounts remove {ADA}' and sign in again" in str(refused.value)
    assert path.read_bytes() == damaged
    assert await store.load(EVE) is not None
    assert await store.accounts() == [ADA, EVE]
    assert await store.remove(ADA)
    await store.save(record(ADA))


async def test_a_damaged_file_with_a_hashed_name_is_left_out_of_the_list(
    store: IniStore, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "x" * 250
    await store.save(record(name))
    await store.save(record(ADA))
    assert await store.accounts() == [ADA, name]
    (path,) = (state / "accounts").glob("sha256=*")
    path.write_bytes(b"")
    assert await store.accounts() == [ADA]
    assert str(path) in caplog.text


async def test_a_file_of_another_making_is_no_account(store: IniStore, state: Path) -> None:
    await store.save(record(ADA))
    for name in ("%ff.ini", "Copy of ada.ini"):
        (state / "accounts" / name).write_bytes((state / "accounts" / f"{ADA}.ini").read_bytes())
        (state / "accounts" / name).chmod(0o600)
    assert await store.accounts() == [ADA]


async def test_a_record_that_could_not_be_read_again_is_not_written(store: IniStore, state: Path) -> None:
    await store.save(record(ADA))
    before = contents(state)
    for wrong in (replace(record(ADA), generation=-1), replace(record(ADA), scope="x" * files.MAX_FILE)):
        with pytest.raises(StateError):
            await store.save(wrong)
    assert contents(state) == before


# ---- leftovers


@pytest.mark.parametrize(("age_s", "stays"), [(0, True), (files.STALE_S - 5, True), (files.STALE_S + 5, False)])
def test_old_temporaries_are_cleared_at_start(age_s: int, stays: bool, state: Path) -> None:
    first = IniStore(state)
    first.prepare()
    (state / "waiting").mkdir(0o700)
    left = [state / part / ".0123.tmp" for part in ("accounts", "locks", "pending", "waiting")]
    others = [state / "accounts" / name for name in ("ada.ini", ".hidden", "x.tmp")]
    for path in (*left, *others):
        path.touch(0o600)
    changed = left[0].stat().st_mtime
    second = IniStore(state, now=lambda: changed + age_s)
    second.prepare()
    assert [path.exists() for path in left] == [stays] * 4
    assert all(path.exists() for path in others)
    first.close()
    second.close()


async def test_a_temporary_is_no_account(store: IniStore, state: Path) -> None:
    await store.save(record(ADA))
    (state / "accounts" / ".0123.tmp").touch(0o600)
    (state / "accounts" / ".0123.ini").touch(0o600)
    assert await store.accounts() == [ADA]


async def test_those_who_ask_at_once_share_one_reading(store: IniStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.save(record(ADA, 1))
    reads: list[Path] = []
    read = files.read
    monkeypatch.setattr(files, "read", lambda path: reads.append(path) or read(path))  # type: ignore[func-returns-value]
    found = await asyncio.gather(*(store.load(name) for name in (ADA, ADA.upper()) * 500))
    assert len(reads) == 1
    assert {each.generation for each in found if each is not None} == {1}


async def test_who_asks_once_a_reading_has_begun_gets_one_of_its_own(
    store: IniStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.save(record(ADA, 1))
    begun, go, read = threading.Event(), threading.Event(), files.read

    def slow(path: Path) -> files.File | None:
        found = read(path)
        begun.set()
        go.wait()
        return found

    with monkeypatch.context() as slowly:
        slowly.setattr(files, "read", slow)
        early = asyncio.create_task(store.load(ADA))
        await asyncio.to_thread(begun.wait)
    await store.save(record(ADA, 2))
    late = await store.load(ADA)
    go.set()
    assert [each.generation for each in (await early, late) if each is not None] == [1, 2]


async def test_who_leaves_a_shared_reading_takes_nothing_from_the_others(store: IniStore) -> None:
    await store.save(record(ADA, 1))
    leaving, staying = asyncio.create_task(store.load(ADA)), asyncio.create_task(store.load(ADA))
    await asyncio.sleep(0)
    leaving.cancel()
    found = await staying
    assert found is not None


async def test_a_record_that_has_changed_is_not_removed_by_who_has_not_seen_it(store: IniStore) -> None:
    seen = await store.save(record(ADA, 1))
    now = await store.save(record(ADA, 2))
    assert not await store.remove(ADA, only=seen)
    assert await store.load(ADA) == now
    assert await store.remove(ADA, only=now)
    assert not await store.remove(ADA, only=now)
