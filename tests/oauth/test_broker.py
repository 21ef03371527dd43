"""Logins of accounts that have a record: warm, cold, wrong, renewed, refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from emailproxy.errors import (
    AccountUnusable,
    ConsentRequired,
    TooManyLogins,
    UnknownAccount,
    WrongPassword,
)
from emailproxy.oauth.throttle import PER_LOGIN
from emailproxy.secret import Secret
from emailproxy.store import slots
from emailproxy.wire.events import Login
from tests.oauth.world import ADA, CHEAP, PASSWORD, WRONG, Process, World, until, visit_of, with_password


@pytest.fixture
async def process(world: World) -> Process:
    """A process, and a signed-in account whose token lives an hour."""
    world.account()
    process = await world.process(wait_s=0)
    await world.signed_in(process)
    world.provider.requests.clear()
    world.provider.arrived = 0
    return process


# ---- who is who


@pytest.mark.parametrize(
    ("user", "password", "refused"),
    [
        (ADA, "", WrongPassword),
        ("nobody@example.org", "", WrongPassword),
        ("nobody@example.org", "x", UnknownAccount),
        ("a\0b", "x", UnknownAccount),
        ("a@b]\n[SMTP-25", "x", UnknownAccount),
        ("a\x7fb", "x", UnknownAccount),
        ("é" * 128, "x", UnknownAccount),
        (ADA, "wrong", WrongPassword),
        (ADA, PASSWORD.reveal() + " ", WrongPassword),
    ],
)
async def test_who_may_not_in_changes_nothing(
    world: World, process: Process, user: str, password: str, refused: type[Exception]
) -> None:
    before = world.files()
    with pytest.raises(refused):
        await process.broker.token(Login(user, Secret(password)), visit_of())
    assert world.files() == before
    assert world.provider.arrived == 0


async def test_the_account_is_found_without_regard_to_case(world: World, process: Process) -> None:
    credential = await process.broker.token(Login(ADA.upper(), PASSWORD), visit_of())
    assert credential.user == ADA
    assert world.provider.verify(credential.token.reveal())["email"] == ADA


async def test_a_restart_needs_the_file_and_nothing_else(world: World, process: Process) -> None:
    token = await process.login()
    assert await (await world.process()).login() == token
    assert world.provider.arrived == 0


async def test_warm_logins_wait_for_no_file_no_derivation_and_cost_little_time(
    world: World, process: Process, record_property: Callable[[str, object], None]
) -> None:
    await process.login()
    process.records.close()  # to read or write a file would now be an error
    process.broker._keyring._pool.shutdown()
    login, visit = Login(ADA, PASSWORD), visit_of()
    start = time.process_time()
    for _ in range(1000):
        await process.broker.token(login, visit)
        await process.broker.accepted(login, visit)
    spent_s = time.process_time() - start
    record_property("cpu_s_of_1000_warm_logins", spent_s)
    assert spent_s < 1.0


async def test_only_what_is_unlocked_is_handed_out_at_once(world: World, process: Process) -> None:
    login, visit = Login(ADA, PASSWORD), visit_of()
    assert process.broker.at_once(login, visit) is None
    token = await process.login()
    credential = process.broker.at_once(login, visit)
    assert credential is not None
    assert (credential.user, credential.token.reveal()) == (ADA, token)
    assert process.broker.is_settled(login, visit)
    assert process.broker.at_once(Login(ADA, WRONG), visit) is None
    with pytest.raises(WrongPassword, match="no password"):
        process.broker.at_once(Login(ADA, Secret("")), visit)


async def test_wrong_passwords_are_derived_and_then_throttled(world: World, process: Process) -> None:
    await process.login()
    for number in range(PER_LOGIN.free):
        with pytest.raises(WrongPassword):
            await process.login(password=Secret(f"guess {number}"))
    with pytest.raises(TooManyLogins, match="try again in 1 s"):
        await process.login(password=WRONG)
    await process.login()  # the owner's warm login goes on
    world.turned.turn(1)
    with pytest.raises(WrongPassword):
        await process.login(password=WRONG)
    with pytest.raises(TooManyLogins, match="try again in 2 s"):
        await process.login(password=Secret("and another"))


async def test_a_parallel_burst_of_guesses_pays_no_more_than_its_allowance(world: World, process: Process) -> None:
    guesses = (process.login(password=Secret(f"guess {number}")) for number in range(40))
    kinds = [type(result) for result in await asyncio.gather(*guesses, return_exceptions=True)]
    assert kinds.count(WrongPassword) <= PER_LOGIN.free + 1
    assert kinds.count(TooManyLogins) == 40 - kinds.count(WrongPassword)


async def test_different_passwords_in_parallel_are_each_checked(world: World, process: Process) -> None:
    tries = [PASSWORD, WRONG, PASSWORD, Secret("other")]
    results = await asyncio.gather(*(process.login(password=one) for one in tries), return_exceptions=True)
    assert [isinstance(result, str) for result in results] == [True, False, True, False]
    assert {type(result) for result in results[1::2]} == {WrongPassword}


@pytest.mark.parametrize("damage", ["open", "damaged"])
async def test_a_state_file_that_cannot_be_used_is_named_and_kept(world: World, process: Process, damage: str) -> None:
    (path,) = (world.folder / "accounts").glob("*.ini")
    if damage == "open":
        path.chmod(0o644)
    else:
        path.write_bytes(b"[account\n")
    before = path.read_bytes()
    with pytest.raises(AccountUnusable, match=path.name):
        await (await world.process()).login()
    assert path.read_bytes() == before


async def test_a_forged_cost_is_refused_before_anything_is_derived(world: World, process: Process) -> None:
    (path,) = (world.folder / "accounts").glob("*.ini")
    forged = path.read_text().replace(f"= {CHEAP.memory_kib}\n", "= 4000000000\n", 1)
    assert "4000000000" in forged
    path.write_text(forged)
    with pytest.raises(AccountUnusable):
        await (await world.process()).login()
    assert path.read_text() == forged


async def test_a_removed_account_is_forgotten_at_the_next_login(world: World, process: Process) -> None:
    await process.login()
    await (await world.process()).records.remove(ADA)
    with pytest.raises(ConsentRequired):
        await process.login()


async def test_a_password_changed_by_another_process_counts_at_once(world: World, process: Process) -> None:
    token = await process.login()
    other = await world.process()
    async with other.records.locked(ADA):
        await other.records.save(await with_password(other, WRONG))
    with pytest.raises(WrongPassword):
        await process.login()
    assert await process.login(password=WRONG) == token
    assert world.provider.arrived == 0


async def test_a_cheap_derivation_is_upgraded_beside_a_login(world: World, process: Process) -> None:
    dearer = slots.Cost(CHEAP.memory_kib * 2, CHEAP.iterations + 1)
    other = await world.process(cost=dearer)
    token = await other.login()
    await until(lambda: other.broker._keyring._upgrades.join(ADA) is None)
    record = await other.records.load(ADA)
    assert record is not None
    assert (record.lockbox.kdf.memory_kib, record.lockbox.kdf.iterations) == dearer
    for each in (process, other, await world.process(cost=dearer)):
        assert await each.login() == token
        with pytest.raises(WrongPassword):
            await each.login(password=WRONG)
