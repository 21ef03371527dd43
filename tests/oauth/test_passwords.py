"""Local passwords, as their owner administers them."""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from emailproxy.config.model import HOURS, MINUTES
from emailproxy.errors import (
    ConsentRequired,
    PasswordNotPermitted,
    PasswordsUnchanged,
    StateError,
    TooManyLogins,
    WrongPassword,
)
from emailproxy.oauth.passwords import NewSlot, Passwords
from emailproxy.oauth.throttle import PER_LOGIN
from emailproxy.secret import Secret
from emailproxy.store import slots
from emailproxy.store.base import Limits, SlotKdf
from emailproxy.wire.events import Login, Visit
from tests.oauth.steady import Steady, stored
from tests.oauth.world import ADA, PASSWORD, WRONG, Process, World, no_space

SCANNER = Secret("the scanner's password")


@pytest.fixture
def provider(world: World) -> Steady:
    return Steady(world.turned)


@pytest.fixture
async def process(world: World, provider: Steady) -> Process:
    """A process with an account that nobody has logged in to."""
    process = await world.process(listens=False, flow=provider, wait_s=0)
    await provider.set_up(world, process, ADA)
    return process


@pytest.fixture
def passwords(process: Process) -> Passwords:
    return process.broker.passwords


async def child(world: World, verb: str, slot: str) -> str:
    """Another process's change; what it says."""
    arguments = ("-m", "tests.oauth.passwords_child", str(world.folder), verb, slot)
    started = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=Path(__file__).parents[2], stdout=PIPE
    )
    out, _ = await started.communicate()
    assert started.returncode == 0
    return out.decode().strip()


# ---- adding


async def test_a_password_is_generated_and_works_beside_the_first(process: Process, passwords: Passwords) -> None:
    slot, generated = await passwords.add(ADA, PASSWORD, NewSlot("phone"))
    assert slots.looks_generated(generated)
    assert (slot.name, slot.kdf, slot.created_s) == ("phone", SlotKdf.HKDF, process.turned.clock.now_s())
    for password in (generated, PASSWORD):
        await process.login(password=password)
    assert [slot.name for slot in await passwords.list(ADA)] == ["first", "phone"]


async def test_a_given_password_is_stretched_and_given_back(process: Process, passwords: Passwords) -> None:
    limits = Limits(("SMTP",), ("10.0.0.0/8",), process.turned.clock.now_s() + 1 * HOURS)
    slot, given = await passwords.add(ADA, PASSWORD, NewSlot("scanner", SCANNER, limits))
    assert (slot.kdf, slot.limits, given) == (SlotKdf.ARGON2ID, limits, SCANNER)
    assert (await stored(process)).lockbox.slots[1] == slot
    with pytest.raises(PasswordNotPermitted):
        await process.login(password=SCANNER)


async def test_an_unlocked_process_needs_no_password(process: Process, passwords: Passwords) -> None:
    with pytest.raises(PasswordsUnchanged) as locked:
        await passwords.add(ADA, None, NewSlot("phone"))
    for way in ("one of its passwords", "log in to it once through the running server", "--consent"):
        assert way in str(locked.value)
    await process.login()
    _, generated = await passwords.add(ADA, None, NewSlot("phone"))
    await process.login(password=generated)


async def test_a_key_of_another_record_opens_nothing(world: World, process: Process, provider: Steady) -> None:
    await process.login()
    await process.records.remove(ADA)
    await provider.set_up(world, process, ADA)
    with pytest.raises(PasswordsUnchanged, match="is locked here"):
        await process.broker.passwords.add(ADA, None, NewSlot("phone"))


async def test_guesses_at_an_opener_are_throttled(passwords: Passwords) -> None:
    for number in range(PER_LOGIN.free):
        with pytest.raises(WrongPassword):
            await passwords.add(ADA, Secret(f"guess {number}"), NewSlot("phone"))
    with pytest.raises(TooManyLogins):
        await passwords.add(ADA, WRONG, NewSlot("phone"))


@pytest.mark.parametrize(
    ("new", "what"),
    [
        (NewSlot("First"), "has a password called 'First' already"),
        (NewSlot("a/b"), "cannot be called 'a/b'"),
        (NewSlot("phone", PASSWORD), f"'first' of {ADA} is this very password"),
        (NewSlot("phone", None, Limits(("ftp",))), "'ftp' is no protocol"),
        (NewSlot("phone", None, Limits((), ("home",))), "'home' is no network"),
        (NewSlot("phone", None, Limits(expires_s=1_800_000_000)), "would have ended already"),
    ],
)
async def test_what_cannot_be_added_changes_nothing(
    world: World, passwords: Passwords, new: NewSlot, what: str
) -> None:
    before = world.files()
    with pytest.raises(PasswordsUnchanged, match=what):
        await passwords.add(ADA, PASSWORD, new)
    assert world.files() == before


async def test_an_empty_password_is_refused(passwords: Passwords) -> None:
    with pytest.raises(WrongPassword, match="empty password"):
        await passwords.add(ADA, PASSWORD, NewSlot("phone", Secret("")))


async def test_an_account_without_passwords_is_named(passwords: Passwords) -> None:
    for change in (
        passwords.list("bob@example.org"),
        passwords.add("bob@example.org", PASSWORD, NewSlot("phone")),
        passwords.change("bob@example.org", PASSWORD, None),
        passwords.remove("bob@example.org", "first", force=True),
    ):
        with pytest.raises(
            PasswordsUnchanged, match=r"bob@example\.org has no password here yet.*emailproxy authorize"
        ):
            await change


async def test_several_processes_add_at_once_and_none_is_lost(world: World, process: Process, provider: Steady) -> None:
    others = [await world.process(listens=False, flow=provider) for _ in range(3)]
    changes = [each.broker.passwords.add(ADA, PASSWORD, NewSlot(f"{n}")) for n, each in enumerate(others)]
    for _, password in await asyncio.gather(*changes):
        await process.login(password=password)
    assert sorted(slot.name for slot in await process.broker.passwords.list(ADA)) == ["0", "1", "2", "first"]


async def test_a_full_disk_changes_nothing(
    world: World, process: Process, passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    await passwords.add(ADA, PASSWORD, NewSlot("phone"))
    before = world.files()
    with monkeypatch.context() as full:
        full.setattr("os.replace", no_space)
        for change in (
            passwords.add(ADA, PASSWORD, NewSlot("tablet")),
            passwords.change(ADA, PASSWORD, SCANNER),
            passwords.remove(ADA, "phone"),
        ):
            with pytest.raises(StateError, match="No space left"):
                await change
    assert world.files() == before


# ---- changing


@pytest.mark.parametrize("new", [None, SCANNER])
async def test_a_changed_password_replaces_the_old_one_with_no_consent(
    process: Process, passwords: Passwords, provider: Steady, new: Secret | None
) -> None:
    token = await process.login()
    slot, password = await passwords.change(ADA, PASSWORD, new)
    assert slot.name == "first"
    assert await process.login(password=password) == token
    with pytest.raises(WrongPassword):
        await process.login()
    assert provider.calls == 0
    with pytest.raises(PasswordsUnchanged, match="is the old one"):
        await passwords.change(ADA, password, password)
    with pytest.raises(WrongPassword):
        await passwords.change(ADA, PASSWORD, None)


# ---- removing


async def test_a_removed_password_is_refused_at_once_and_the_others_stay_warm(
    process: Process, passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    await passwords.add(ADA, PASSWORD, NewSlot("scanner", SCANNER))
    for password in (SCANNER, PASSWORD):
        await process.login(password=password)
    removed = await passwords.remove(ADA, "SCANNER")
    assert str(removed) == f"the password 'scanner' of {ADA} is removed; sessions that stand go on"
    with pytest.raises(WrongPassword):
        await process.login(password=SCANNER)
    monkeypatch.setattr(slots, "_stretch", lambda *_: pytest.fail("derived"))
    await process.login()
    with pytest.raises(PasswordsUnchanged, match=r"no password called 'scanner'; it has 'first'"):
        await passwords.remove(ADA, "scanner")


async def test_the_last_password_goes_only_by_force_and_takes_the_record_with_it(
    world: World, process: Process, passwords: Passwords, provider: Steady
) -> None:
    await process.login()
    before = world.files()
    with pytest.raises(PasswordsUnchanged, match=r"its tokens are gone.*--force"):
        await passwords.remove(ADA, "first")
    assert world.files() == before
    removed = await passwords.remove(ADA, "first", force=True)
    assert removed.record
    assert f"run 'emailproxy authorize {ADA}'" in str(removed)
    assert world.files() == {}
    with pytest.raises(ConsentRequired):
        await process.login(password=WRONG)


async def test_a_consent_that_waits_brings_no_removed_password_back(
    world: World, process: Process, passwords: Passwords, provider: Steady
) -> None:
    await process.login()
    provider.revoke(ADA)
    world.turned.turn(2 * HOURS)
    with pytest.raises(ConsentRequired):
        await process.login()
    assert len(await process.pending.waiting()) == 1
    await passwords.remove(ADA, "first", force=True)
    assert await process.pending.waiting() == []
    assert world.files() == {}


async def test_a_password_added_meanwhile_is_not_removed_with_the_last_one(
    world: World, process: Process, passwords: Passwords, provider: Steady, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await world.process(listens=False, flow=provider)
    remove, added = process.records.remove, []

    async def late(account: str, **only):  # type: ignore[no-untyped-def]
        if not added:
            added.append(await other.broker.passwords.add(ADA, PASSWORD, NewSlot("phone")))
        return await remove(account, **only)

    monkeypatch.setattr(process.records, "remove", late)
    removed = await passwords.remove(ADA, "first", force=True)
    assert not removed.record
    await process.login(password=added[0][1])


# ---- other processes


async def test_what_another_process_changes_counts_at_the_next_login(world: World, process: Process) -> None:
    generated = Secret(await child(world, "add", "scanner"))
    for password in (generated, PASSWORD):
        await process.login(password=password)
    assert "'scanner'" in await child(world, "remove", "scanner")
    with pytest.raises(WrongPassword):
        await process.login(password=generated)
    await process.login()


async def test_two_programs_take_turns_for_an_hour_and_nothing_is_lost(world: World) -> None:
    """A mail program and a scanner, each with a password of its own, at two servers that share the state folder."""
    world.provider.expires_in = 300
    world.account()
    servers = [await world.process(), await world.process(listens=False)]
    await world.signed_in(servers[0])
    limits = Limits(("SMTP",), ("127.0.0.0/8",))
    scanner, password = await servers[0].broker.passwords.add(ADA, PASSWORD, NewSlot("scanner", None, limits))
    programs = [(PASSWORD, "IMAP"), (password, "SMTP")]
    for minute in range(60):
        login, protocol = programs[minute % 2]
        visit = Visit(f"s{minute}", protocol, "127.0.0.1")
        credential = await servers[minute // 2 % 2].broker.token(Login(ADA, login), visit)
        world.provider.verify(credential.token.reveal())
        world.turned.turn(1 * MINUTES)
    for server in servers:
        await server.broker._keyring._uses.close()
    assert set(world.grants()) == {"authorization_code", "refresh_token"}
    assert world.grants().count("refresh_token") >= 60 * MINUTES // 300 - 1
    assert {request.status for request in world.provider.requests} == {200}
    assert world.provider.revoked_families == 0
    kept = await servers[0].broker.passwords.list(ADA)
    assert [slot.name for slot in kept] == ["first", "scanner"]
    assert kept[1] == scanner
    assert all(slot.last_used_s is not None for slot in kept)
    after = await world.process(listens=False)
    for login, protocol in programs:
        visit = Visit("after", protocol, "127.0.0.1")
        world.provider.verify((await after.broker.token(Login(ADA, login), visit)).token.reveal())


# ---- the log


async def test_no_password_is_logged(process: Process, passwords: Passwords, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    _, generated = await passwords.add(ADA, PASSWORD, NewSlot("phone", None, Limits(("SMTP",))))
    await passwords.change(ADA, generated, SCANNER)
    await passwords.remove(ADA, "phone")
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("the ")]
    assert said == [
        f"the password 'phone' of {ADA} was added, SMTP only",
        f"the password 'phone' of {ADA} was changed",
        f"the password 'phone' of {ADA} is removed; sessions that stand go on",
    ]
    for secret in (PASSWORD, generated, SCANNER):
        assert secret.reveal() not in caplog.text
