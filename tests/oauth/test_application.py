"""Logins of the client_credentials flow, which asks no person: the first accepted password counts."""

from __future__ import annotations

import asyncio

import pytest

from emailproxy.errors import AccountUnusable, ProviderRefused, TokenRefused, WrongPassword
from emailproxy.secret import Secret
from emailproxy.store.base import Record
from emailproxy.wire.events import Login
from tests.oauth.world import ADA, PASSWORD, WRONG, World, no_space, settled, visit_of


async def test_a_first_login_becomes_the_first_slot_once_accepted(world: World) -> None:
    world.application()
    process = await world.process()
    login, visit = Login(ADA, PASSWORD), visit_of()
    credential = await process.broker.token(login, visit)
    assert world.files() == {}
    await process.broker.accepted(login, visit)
    assert len(world.files()) == 1
    assert await process.login() == credential.token.reveal()
    assert await (await world.process()).login() == credential.token.reveal()
    assert world.grants() == ["client_credentials"]
    with pytest.raises(WrongPassword):
        await process.login(password=WRONG)


async def test_a_typo_never_becomes_a_slot(world: World) -> None:
    world.application()
    process = await world.process()
    await process.broker.token(Login(ADA, WRONG), visit_of("typo"))  # the mail server refuses this one
    await process.login()
    with pytest.raises(WrongPassword):
        await process.login(password=WRONG)
    assert len(world.grants()) == 1


async def test_of_two_first_logins_the_one_stored_first_wins(world: World) -> None:
    world.application()
    processes = [await world.process(), await world.process()]
    first, second = Login(ADA, PASSWORD), Login(ADA, WRONG)
    await processes[0].broker.token(first, visit_of("a"))
    await processes[1].broker.token(second, visit_of("b"))
    await processes[0].broker.accepted(first, visit_of("a"))
    await processes[1].broker.accepted(second, visit_of("b"))
    for process in processes:
        await process.login()
        with pytest.raises(WrongPassword):
            await process.login(password=WRONG)


async def test_while_a_first_password_is_being_stored_no_other_is_let_in(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.application()
    process = await world.process()
    login, visit = Login(ADA, PASSWORD), visit_of()
    credential = await process.broker.token(login, visit)
    save, reached, go_on = process.records.save, asyncio.Event(), asyncio.Event()

    async def slow(record: Record) -> Record:
        reached.set()
        await go_on.wait()
        return await save(record)

    monkeypatch.setattr(process.records, "save", slow)
    storing = asyncio.create_task(process.broker.accepted(login, visit))
    await reached.wait()
    same = asyncio.create_task(process.broker.token(login, visit_of("same")))
    other = asyncio.create_task(process.broker.token(Login(ADA, WRONG), visit_of("other")))
    await settled()
    go_on.set()
    with pytest.raises(WrongPassword):
        await other
    assert await same == credential
    await storing
    assert world.grants() == ["client_credentials"]


async def test_ten_first_logins_cost_one_request_and_one_slot(world: World) -> None:
    world.application()
    process = await world.process()
    tokens = await asyncio.gather(*(process.login(session=f"s{number}") for number in range(10)))
    assert len(set(tokens)) == 1
    assert world.grants() == ["client_credentials"]
    record = await process.records.load(ADA)
    assert record is not None
    assert len(record.lockbox.slots) == 1


@pytest.mark.parametrize("application", [True, False])
async def test_a_port_that_is_not_on_loopback_sets_no_password(world: World, application: bool) -> None:
    if application:
        world.application()
    else:
        world.account()
    process = await world.process(wait_s=0)
    with pytest.raises(WrongPassword, match=f"emailproxy authorize {ADA}"):
        await process.login(may_set=False)
    assert world.files() == {}
    assert world.provider.arrived == 0


async def test_an_application_signs_in_at_the_command_line(world: World) -> None:
    world.application()
    process = await world.process()
    assert await process.broker.sign_in(ADA, PASSWORD) is None
    world.provider.verify(await process.login(may_set=False))
    with pytest.raises(WrongPassword):
        await process.broker.sign_in(ADA, WRONG)


async def test_an_application_token_is_acquired_anew(world: World) -> None:
    world.application()
    process = await world.process()
    first = await process.login()
    world.turned.turn(3600)
    second = await process.login()
    assert second != first
    assert await process.login(rejected="no") != second
    assert world.grants() == ["client_credentials"] * 3


async def test_a_refused_draft_is_acquired_anew_once_a_minute(world: World) -> None:
    world.application()
    process = await world.process()
    login = Login(ADA, PASSWORD)
    first = await process.broker.token(login, visit_of())
    second = await process.broker.token(login, visit_of(), "no")
    assert second != first
    with pytest.raises(TokenRefused):
        await process.broker.token(login, visit_of(), "no")
    assert world.files() == {}


async def test_an_application_that_is_refused_says_so(world: World) -> None:
    world.application(client_secret=Secret("canary-bad-secret"))
    process = await world.process()
    with pytest.raises(ProviderRefused, match="invalid_client") as caught:
        await process.login()
    assert "canary" not in str(caught.value)


async def test_a_first_password_that_cannot_be_stored_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.application()
    process = await world.process()
    with monkeypatch.context() as patch:
        patch.setattr("emailproxy.store.files.os.replace", no_space)
        with pytest.raises(AccountUnusable, match="No space left"):
            await process.login()
    world.provider.verify(await process.login())
    assert len(world.grants()) == 1
