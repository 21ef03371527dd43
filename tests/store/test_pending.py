"""Consents that wait, within one process."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from emailproxy.errors import StateError, StateExposed
from emailproxy.secret import Secret
from emailproxy.store import pending as module
from emailproxy.store import sealing, slots
from emailproxy.store.base import PendingStore
from emailproxy.store.folder import StateFolder
from emailproxy.store.ini import IniStore
from emailproxy.store.pending import IniPendingStore
from tests.store.samples import NOW, PASSWORD, pending

ADA = "ada@example.org"
DAY = 86_400


class Clock:
    now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def consents(state: Path, clock: Clock) -> Iterator[IniPendingStore]:
    store = IniPendingStore(state, now=clock)
    StateFolder(state).prepare(NOW)
    yield store
    store.close()


def waiting_files(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "pending").iterdir())


async def test_nothing_waits_where_nothing_is(state: Path) -> None:
    store: PendingStore = IniPendingStore(state)
    assert await store.by_state("x") is await store.by_account(ADA) is await store.claim("x") is None
    assert await store.waiting() == []
    assert not await store.discard(ADA)


async def test_a_consent_is_found_by_state_and_by_account(consents: IniPendingStore, state: Path) -> None:
    kept = pending("secret state", "Ada@Example.org")
    await consents.put(kept)
    other = IniPendingStore(state, now=lambda: NOW)
    assert kept.account == ADA
    assert kept == await other.by_state("secret state") == await other.by_account("ADA@example.org")
    assert await other.waiting() == [kept]
    assert await other.by_state("secret stat") is await other.by_account("eve@example.org") is None
    assert waiting_files(state) == [f"{sealing.state_hash(Secret('secret state'))}.ini"]
    other.close()


async def test_a_file_is_useless_without_its_state(consents: IniPendingStore, state: Path) -> None:
    await consents.put(pending("secret state"))
    (path,) = (state / "pending").iterdir()
    for secret in (b"secret state", b"verifier"):
        assert secret not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    kept = await consents.by_account(ADA)
    assert kept is not None
    key, _ = slots.unlock(kept.lockbox, ADA, PASSWORD)
    state_again = key.open(ADA, "state", 0, kept.sealed_state)
    assert sealing.reveal(state_again, "consent", kept.encrypted) == b"verifier"


async def test_a_consent_is_claimed_once(consents: IniPendingStore, state: Path) -> None:
    kept = pending("state")
    await consents.put(kept)
    other = IniPendingStore(state, now=lambda: NOW)
    claimed = await asyncio.gather(*(store.claim("state") for store in (consents, other) * 5))
    assert [one for one in claimed if one is not None] == [kept]
    assert await consents.by_account(ADA) is await consents.by_state("state") is None
    other.close()


async def test_a_wrong_state_claims_nothing(consents: IniPendingStore) -> None:
    await consents.put(pending("state"))
    for wrong in ("", "stat", "state ", "../pending", sealing.state_hash(Secret("state")), "\udcff", "x" * 100_000):
        assert await consents.claim(wrong) is None
    assert await consents.claim("state") is not None


async def test_a_new_consent_takes_the_old_ones_place(consents: IniPendingStore) -> None:
    await consents.put(pending("eve", "eve@example.org"))
    # The clock may have been set back: what was put last counts, not what looks youngest.
    for name, created_s in (("first", NOW + 60), ("second", NOW), ("second", NOW + 1)):
        await consents.put(pending(name, created_s=created_s))
    assert await consents.by_state("first") is None
    assert [one.created_s for one in await consents.waiting()] == [NOW, NOW + 1]
    kept = await consents.by_account(ADA)
    assert kept is not None
    assert kept.state_hash == sealing.state_hash(Secret("second"))
    assert await consents.by_state("eve") is not None


async def test_consents_put_at_once_leave_one(consents: IniPendingStore, state: Path) -> None:
    other = IniPendingStore(state, now=lambda: NOW)
    await asyncio.gather(*(store.put(pending(f"{number}")) for number, store in enumerate((consents, other) * 5)))
    assert len(await consents.waiting()) == 1
    other.close()


async def test_a_discarded_consent_is_gone(consents: IniPendingStore) -> None:
    await consents.put(pending("state"))
    await consents.put(pending("eve", "eve@example.org"))
    assert await consents.discard("Ada@example.org")
    assert not await consents.discard(ADA)
    assert await consents.claim("state") is None
    assert await consents.by_state("eve") is not None


@pytest.mark.parametrize("look", ["by_state", "by_account", "claim", "waiting"])
@pytest.mark.parametrize(("after_s", "waits"), [(0, True), (DAY - 1, True), (DAY, False), (10 * DAY, False)])
async def test_an_expired_consent_is_removed_when_met(
    look: str, after_s: int, waits: bool, consents: IniPendingStore, clock: Clock, state: Path
) -> None:
    await consents.put(pending("state"))
    clock.now += after_s
    match look:
        case "waiting":
            found = bool(await consents.waiting())
        case "by_account":
            found = await consents.by_account(ADA) is not None
        case _:
            found = await getattr(consents, look)("state") is not None
    assert found is waits
    assert bool(waiting_files(state)) is (waits and look != "claim")


async def test_they_are_listed_oldest_first(consents: IniPendingStore) -> None:
    for age in (3, 1, 4, 2):
        await consents.put(pending(f"{age}", f"{age}@example.org", created_s=NOW - age))
    assert [one.account[0] for one in await consents.waiting()] == ["4", "3", "2", "1"]


async def test_the_oldest_makes_room(consents: IniPendingStore, monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)

    async def put(account: str, age_s: int) -> None:
        one = pending(f"{account} {age_s}", account, created_s=NOW - age_s)
        await consents.put(one)
        os.utime(state / "pending" / f"{one.state_hash}.ini", (one.created_s, one.created_s))

    for age_s, account in ((9, "a@x"), (7, "b@x"), (5, "c@x"), (3, "b@x")):
        await put(account, age_s)
    assert [one.account for one in await consents.waiting()] == ["a@x", "c@x", "b@x"]
    await put("d@x", 1)
    assert [one.account for one in await consents.waiting()] == ["c@x", "b@x", "d@x"]
    assert await consents.by_account("a@x") is None
    assert await consents.by_account("b@x") is not None


async def test_what_an_earlier_version_left_is_found(consents: IniPendingStore, state: Path) -> None:
    """Looked through by a reader, and put down once by a server's start or the next sign-in."""
    ada, eve = pending("ada's"), pending("eve's", "eve@example.org")
    for one in (ada, eve):
        await consents.put(one)
    shutil.rmtree(state / "waiting")
    assert await consents.by_account(ADA) == ada
    assert not (state / "waiting").exists()
    await consents.prepare()
    (state / "pending" / f"{eve.state_hash}.ini").rename(state / "pending" / "elsewhere")
    assert await consents.by_account(ADA) == ada
    assert await consents.by_account("eve@example.org") is None
    assert await consents.discard(ADA)
    assert await consents.by_state("ada's") is None


async def test_whose_they_were_is_forgotten(
    consents: IniPendingStore, monkeypatch: pytest.MonkeyPatch, state: Path
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    for number in range(4):
        await consents.put(pending(f"{number}", f"{number}@x"))
        assert await consents.claim(f"{number}")
    await consents.put(pending("the last", ADA))
    assert [path.name for path in (state / "waiting").iterdir()] == [f"{ADA}.txt"]
    assert await consents.by_account(ADA) is not None


@pytest.mark.parametrize("bad", [b"", b"[consent]\n", b"\xff\0", None])
async def test_a_file_that_cannot_be_used_is_passed_over(
    bad: bytes | None, consents: IniPendingStore, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await consents.put(pending("state"))
    await consents.put(pending("eve", "eve@example.org"))
    path = state / "pending" / f"{sealing.state_hash(Secret('state'))}.ini"
    if bad is None:
        path.chmod(0o644)
    else:
        path.write_bytes(bad)
    for _ in range(3):
        assert [one.account for one in await consents.waiting()] == ["eve@example.org"]
        assert await consents.claim("state") is await consents.by_account(ADA) is None
    assert path.exists()
    assert caplog.text.count(str(path)) >= 1
    assert len(caplog.records) == 1


async def test_a_file_under_another_name_is_passed_over(consents: IniPendingStore, state: Path) -> None:
    await consents.put(pending("state"))
    (path,) = (state / "pending").iterdir()
    path.rename(path.with_name(f"{sealing.state_hash(Secret('other'))}.ini"))
    assert await consents.by_state("other") is await consents.claim("other") is await consents.by_account(ADA) is None


async def test_an_open_folder_is_refused(consents: IniPendingStore, state: Path) -> None:
    (state / "pending").chmod(0o755)
    for attempt in (consents.waiting, lambda: consents.claim("x"), lambda: consents.put(pending("state"))):
        with pytest.raises(StateExposed, match="chmod 700"):
            await attempt()


async def test_what_could_not_be_read_again_is_not_written(consents: IniPendingStore, state: Path) -> None:
    for wrong in (replace(pending("x"), state_hash="../../x"), replace(pending("x"), created_s=-1)):
        with pytest.raises(StateError):
            await consents.put(wrong)
    assert waiting_files(state) == []


async def test_the_accounts_lock_does_not_stop_its_consent(consents: IniPendingStore, state: Path) -> None:
    store = IniStore(state)
    async with asyncio.timeout(30), store.locked(ADA):
        await consents.put(pending("state"))
        assert await consents.discard(ADA)
    store.close()
