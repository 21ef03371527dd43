"""Local passwords at logins: what they are good for, when they were used, and which are known to be wrong."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from emailproxy.config.model import DAYS, HOURS
from emailproxy.errors import PasswordNotPermitted, StateError, TooManyLogins, WrongPassword
from emailproxy.oauth.flow import Approval
from emailproxy.oauth.passwords import NewSlot
from emailproxy.oauth.throttle import PER_LOGIN
from emailproxy.secret import Secret
from emailproxy.store import slots
from emailproxy.store.base import Limits, Slot
from emailproxy.wire.events import Login, Visit
from tests.oauth.steady import Steady, stored
from tests.oauth.world import ADA, PASSWORD, WRONG, Process, World, no_space, settled, until

SCANNER = Secret("the scanner's password")
HERE, THERE = "10.0.0.7", "192.0.2.1"


@pytest.fixture
def provider(world: World) -> Steady:
    return Steady(world.turned, life_s=1 * DAYS)


@pytest.fixture
async def process(world: World, provider: Steady) -> Process:
    """A process with an account that nobody has logged in to."""
    process = await world.process(listens=False, flow=provider)
    await provider.set_up(world, process, ADA)
    return process


async def add(process: Process, password: Secret | None = SCANNER, name: str = "scanner", **limits: object) -> Secret:
    new = NewSlot(name, password, Limits(**limits))  # type: ignore[arg-type]
    return (await process.broker.passwords.add(ADA, PASSWORD, new))[1]


async def log_in(process: Process, password: Secret, protocol: str = "IMAP", address: str = HERE) -> str:
    visit = Visit("s1", protocol, address)
    return (await process.broker.token(Login(ADA, password), visit)).token.reveal()


async def refused(process: Process, password: Secret, protocol: str = "IMAP", address: str = HERE) -> str:
    with pytest.raises(PasswordNotPermitted) as caught:
        await log_in(process, password, protocol, address)
    return str(caught.value)


# ---- limits


@pytest.mark.parametrize("generated", [False, True])
@pytest.mark.parametrize("warm", [False, True])
async def test_a_password_is_good_for_what_its_slot_permits(
    world: World, process: Process, generated: bool, warm: bool
) -> None:
    ends_s = int(world.turned.wall) + 60
    password = await add(
        process, None if generated else SCANNER, protocols=("smtp",), networks=("10.0.0.0/8",), expires_s=ends_s
    )
    if warm:
        await log_in(process, password, "SMTP")
    told = f"the password 'scanner' of {ADA} "
    assert await refused(process, password) == f"{told}is for SMTP only, and this is IMAP; use another of its passwords"
    assert await refused(process, password, "SMTP", THERE) == (
        f"{told}is for logins from 10.0.0.0/8 only, and this one comes from {THERE}; use another of its passwords"
    )
    await log_in(process, password, "SMTP", f"::ffff:{HERE}")
    world.turned.turn(59)
    await log_in(process, password, "SMTP")
    world.turned.turn(1)
    assert (await refused(process, password, "SMTP")).startswith(f"{told}ended on ")
    await log_in(process, PASSWORD, "IMAP", THERE)


async def test_a_right_password_in_the_wrong_place_is_no_guess(process: Process) -> None:
    await add(process, protocols=("SMTP",))
    for _ in range(PER_LOGIN.free * 3):
        await refused(process, SCANNER)
    await log_in(process, PASSWORD)


async def test_the_providers_own_passwords_are_not_asked_about_in_place_of_a_limited_one(
    process: Process, provider: Steady
) -> None:
    provider.approval = Approval.PASSWORD
    await add(process, protocols=("SMTP",))
    await refused(process, SCANNER)
    assert provider.calls == 0


async def test_the_command_line_may_use_any_password_that_has_not_ended(world: World, process: Process) -> None:
    ends_s = int(world.turned.wall) + 60
    await add(process, protocols=("SMTP",), networks=("10.0.0.0/8",), expires_s=ends_s)
    await process.broker.passwords.add(ADA, SCANNER, NewSlot("phone"))
    world.turned.turn(60)
    with pytest.raises(PasswordNotPermitted, match="ended on"):
        await process.broker.passwords.add(ADA, SCANNER, NewSlot("tablet"))


# ---- last use


async def last_uses(process: Process) -> dict[str, int | None]:
    await process.broker._keyring._uses.close()
    return {slot.name: slot.last_used_s for slot in (await stored(process)).lockbox.slots}


async def test_the_last_use_is_kept_to_the_hour(world: World, process: Process) -> None:
    began_s = int(world.turned.wall)
    await add(process)
    assert await last_uses(process) == {"first": None, "scanner": None}
    for _ in range(3):
        await log_in(process, PASSWORD)
        world.turned.turn(10)
    assert await last_uses(process) == {"first": began_s, "scanner": None}
    await log_in(process, SCANNER)
    world.turned.turn(1 * HOURS - 31)
    await log_in(process, PASSWORD)
    assert await last_uses(process) == {"first": began_s, "scanner": began_s + 30}
    world.turned.turn(1)
    await log_in(process, PASSWORD)
    assert await last_uses(process) == {"first": began_s + 1 * HOURS, "scanner": began_s + 30}


async def test_a_last_use_costs_no_derivation_anywhere(
    world: World, process: Process, provider: Steady, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await world.process(listens=False, flow=provider)
    for each in (process, other):
        await log_in(each, PASSWORD)
        await last_uses(each)
    monkeypatch.setattr(slots, "_stretch", lambda *_: pytest.fail("derived"))
    for _ in range(5):
        world.turned.turn(1 * HOURS)
        for each in (process, other):
            await log_in(each, PASSWORD)
            assert await last_uses(each) == {"first": int(world.turned.wall)}


async def test_two_processes_write_one_last_use_an_hour(world: World, process: Process, provider: Steady) -> None:
    other = await world.process(listens=False, flow=provider)
    await log_in(process, PASSWORD)
    began = await last_uses(process)
    world.turned.turn(60)
    before = world.files()
    await log_in(other, PASSWORD)
    assert await last_uses(other) == began
    assert world.files() == before


async def test_a_last_use_that_cannot_be_written_stops_nobody(
    world: World, process: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with monkeypatch.context() as full:
        full.setattr("os.replace", no_space)
        await log_in(process, PASSWORD)
        assert await last_uses(process) == {"first": None}
    (line,) = [record for record in caplog.records if "last use" in record.getMessage()]
    assert line.levelno == logging.DEBUG
    assert "No space left on device" in line.getMessage()


async def test_a_login_waits_for_no_last_use(process: Process) -> None:
    await log_in(process, PASSWORD)
    await last_uses(process)
    process.turned.turn(1 * HOURS - 1)
    await log_in(process, PASSWORD)
    process.turned.turn(1)
    async with process.records.locked(ADA):
        await log_in(process, PASSWORD)
        await log_in(process, PASSWORD)


async def test_a_slot_that_was_changed_meanwhile_is_left_alone(process: Process) -> None:
    await log_in(process, PASSWORD)
    await last_uses(process)
    process.turned.turn(1 * HOURS)
    async with process.records.locked(ADA) as record:
        await log_in(process, PASSWORD)
        await settled()
        assert record is not None
        (slot,) = record.lockbox.slots
        renamed: Slot = replace(slot, name="renamed")
        saved = replace(record, lockbox=replace(record.lockbox, slots=(renamed,)))
        await process.records.save(saved)
    await last_uses(process)
    assert (await stored(process)).lockbox.slots == (renamed,)


# ---- wrong ones


async def test_an_old_password_that_is_tried_again_and_again_shuts_nobody_out(process: Process) -> None:
    """A program that was forgotten must not lock out the others of its machine."""
    for _ in range(100):
        with pytest.raises(WrongPassword):
            await log_in(process, WRONG)
    await log_in(process, PASSWORD)


async def test_a_right_password_works_while_others_guess_from_elsewhere(process: Process) -> None:
    for number in range(200):
        with pytest.raises((WrongPassword, TooManyLogins)):
            await log_in(process, Secret(f"guess {number}"), address=f"192.0.2.{number % 20}")
    with pytest.raises(TooManyLogins):
        await log_in(process, WRONG, address="192.0.2.1")
    await log_in(process, PASSWORD)


async def test_a_password_that_was_wrong_is_tried_again_once_the_passwords_change(process: Process) -> None:
    with pytest.raises(WrongPassword):
        await log_in(process, SCANNER)
    await add(process)
    await log_in(process, SCANNER)


async def test_what_waits_is_refused_before_its_file_is_read(process: Process) -> None:
    for number in range(PER_LOGIN.free):
        with pytest.raises(WrongPassword):
            await log_in(process, Secret(f"guess {number}"))
    process.records.load = lambda _: pytest.fail("read")  # type: ignore[method-assign]
    with pytest.raises(TooManyLogins):
        await log_in(process, WRONG)


async def test_a_warm_or_generated_password_is_let_in_where_guesses_wait(process: Process) -> None:
    generated = await add(process, None)
    await log_in(process, PASSWORD)
    for number in range(PER_LOGIN.free):
        with pytest.raises(WrongPassword):
            await log_in(process, Secret(f"guess {number}"))
    with pytest.raises(TooManyLogins):
        await log_in(process, WRONG)
    process.turned.turn(0.5)
    await log_in(process, PASSWORD)
    await log_in(process, generated)


# ---- upgrades


async def test_an_upgrade_waits_for_a_login_with_the_stretched_password(
    world: World, process: Process, provider: Steady
) -> None:
    generated = await add(process, None)
    dearer = await world.process(listens=False, flow=provider, cost=slots.Cost(16, 2))
    await log_in(dearer, generated)
    assert dearer.broker._keyring._upgrades.join(ADA) is None
    await log_in(dearer, PASSWORD)
    await until(lambda: dearer.broker._keyring._upgrades.join(ADA) is None)
    assert (await stored(process)).lockbox.kdf.iterations == 2
    for password in (PASSWORD, generated):
        await log_in(process, password)


async def test_an_upgrade_keeps_the_last_use_and_the_place_of_others(
    world: World, process: Process, provider: Steady
) -> None:
    await add(process, None)
    await log_in(process, PASSWORD)
    uses = await last_uses(process)
    world.turned.turn(60)
    dearer = await world.process(listens=False, flow=provider, cost=slots.Cost(16, 2))
    await log_in(dearer, PASSWORD)
    await until(lambda: dearer.broker._keyring._upgrades.join(ADA) is None)
    assert await last_uses(dearer) == uses


async def test_a_first_login_whose_record_does_not_come_is_noted_nowhere(world: World, process: Process) -> None:
    uses = process.broker._keyring._uses
    slot = slots.new_lockbox("bob@example.org", PASSWORD, now_s=0, cost=slots.Cost(8, 1))[0].slots[0]
    uses.note("bob@example.org", slot)
    await uses.close()
    assert await process.records.load("bob@example.org") is None


async def test_errors_of_the_store_are_what_they_were(process: Process, world: World) -> None:
    (path,) = (world.folder / "accounts").glob("*.ini")
    path.chmod(0o644)
    with pytest.raises(StateError):
        await asyncio.gather(*(process.records.load(ADA) for _ in range(3)))
