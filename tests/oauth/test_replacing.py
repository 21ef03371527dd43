"""A fresh sign-in as the way back in: the new password becomes the only one, and only once the owner has signed in."""

from __future__ import annotations

import logging

import pytest

from emailproxy.config.model import FlowName
from emailproxy.errors import AccountUnusable, ConsentRequired, WrongPassword
from emailproxy.oauth.passwords import NewSlot
from emailproxy.oauth.waiting import Waiting
from emailproxy.secret import Secret
from emailproxy.store.codec import dump_pending, parse_pending
from tests.oauth.world import ADA, PASSWORD, WRONG, Process, World, browse

EVE = "eve@example.org"
NEW = Secret("canary-new-password")
DEVICE = Secret("canary-scanner-password")


@pytest.fixture
async def process(world: World) -> Process:
    """A server with an account of two passwords, which it has unlocked."""
    world.account(login_hint="")
    world.provider.account = ADA
    process = await world.process(wait_s=0)
    await world.signed_in(process)
    await process.broker.passwords.add(ADA, PASSWORD, NewSlot("scanner", DEVICE))
    for password in (PASSWORD, DEVICE):
        await process.login(password=password)
    return process


async def replacing(process: Process, password: Secret = NEW) -> Waiting:
    waiting = await process.broker.sign_in(ADA, password, replace=True, slot_name="laptop")
    assert waiting is not None
    return waiting


async def test_the_owners_sign_in_replaces_all_passwords(
    world: World, process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    shell = await world.process()
    waiting = await replacing(shell)
    for password in (PASSWORD, DEVICE):  # until then nothing changes
        await process.login(password=password)
    with pytest.raises(WrongPassword):
        await process.login(password=NEW)
    assert (await browse(waiting.url)).status == 200
    assert await waiting.wait(0)
    assert f"the passwords that {ADA} had here are gone; that of this sign-in is the only one" in caplog.messages
    for server in (process, shell):
        world.provider.verify(await server.login(password=NEW))
        for password in (PASSWORD, DEVICE):
            with pytest.raises(WrongPassword):
                await server.login(password=password)
    assert [slot.name for slot in await process.broker.passwords.list(ADA)] == ["laptop"]


async def test_somebody_elses_sign_in_replaces_nothing(world: World, process: Process) -> None:
    before = await process.records.load(ADA)
    waiting = await replacing(process)
    world.provider.account = EVE
    assert (await browse(waiting.url)).status == 400
    assert await process.records.load(ADA) == before
    await process.login()
    with pytest.raises(ConsentRequired):
        await waiting.wait(0)


async def test_a_renewal_meanwhile_is_not_taken_for_its_completion(world: World, process: Process) -> None:
    shell = await world.process()
    waiting = await replacing(shell)
    world.turned.turn(3600)
    await process.login()
    assert not await waiting.wait(0)
    await process.consents.discard(ADA)
    with pytest.raises(ConsentRequired, match="another one took its place"):
        await waiting.wait(0)


async def test_one_such_sign_in_waits_and_a_record_that_is_gone_meanwhile_is_no_hindrance(
    world: World, process: Process
) -> None:
    first = await replacing(process)
    shell = await world.process()
    second = await replacing(shell, DEVICE)
    assert (await browse(first.url)).status == 400  # one pending sign-in an account
    assert (await browse(second.url)).status == 200
    third = await replacing(process)
    await process.records.remove(ADA)
    assert (await browse(third.url)).status == 200  # nothing is left to be replaced
    world.provider.verify(await process.login(password=NEW))


async def test_a_sign_in_that_replaces_another_record_than_it_was_begun_for_stores_nothing(
    world: World, process: Process
) -> None:
    waiting = await replacing(process)
    record = await process.records.load(ADA)
    assert record is not None
    await process.records.remove(ADA)
    world.application()
    await process.login(password=DEVICE)
    other = await process.records.load(ADA)
    world.account(login_hint="")
    assert (await browse(waiting.url)).status == 400
    assert await process.records.load(ADA) == other


async def test_a_login_that_needs_a_sign_in_does_not_displace_it(world: World, process: Process) -> None:
    world.provider.revoke_refresh_tokens()
    world.turned.turn(3600)
    waiting = await replacing(process)
    with pytest.raises(ConsentRequired, match=f"a sign-in of {ADA} waits that will replace the passwords of {ADA}"):
        await process.login()
    assert (await browse(waiting.url)).status == 200
    world.provider.verify(await process.login(password=NEW))
    again = await replacing(process, WRONG)
    ordinary = await process.broker.sign_in(ADA, NEW)  # the command line starts over
    assert ordinary is not None
    assert (await browse(again.url)).status == 400
    assert (await browse(ordinary.url)).status == 200
    world.provider.verify(await process.login(password=NEW))


async def test_a_new_account_is_set_up_as_ever(world: World) -> None:
    world.account()
    process = await world.process()
    waiting = await replacing(process)
    assert (await browse(waiting.url)).status == 200
    world.provider.verify(await process.login(password=NEW))
    assert [slot.name for slot in await process.broker.passwords.list(ADA)] == ["laptop"]


async def test_a_sealed_client_secret_is_carried_over_where_it_is_known(world: World) -> None:
    world.account()
    process = await world.process(seal_client_secrets=True)
    await world.signed_in(process)
    await process.login()
    world.account(client_secret=None)
    shell = await world.process()
    with pytest.raises(AccountUnusable, match=r"write client_secret into \[ada@example.org\] again first"):
        await replacing(shell)
    waiting = await replacing(process)
    assert (await browse(waiting.url)).status == 200
    world.turned.turn(3600)
    world.provider.verify(await (await world.process()).login(password=NEW))
    assert world.provider.requests[-1].grant == "refresh_token"


async def test_accounts_that_nobody_signs_in_for_have_another_way(world: World) -> None:
    world.application()
    process = await world.process()
    await process.login()
    before = await process.records.load(ADA)
    with pytest.raises(AccountUnusable, match=f"nobody signs in for {ADA}"):
        await process.broker.sign_in(ADA, NEW, replace=True)
    assert await process.records.load(ADA) == before
    world.account(flow=FlowName.PASSWORD, permission_url=None)
    world.provider.passwords = {ADA: NEW.reveal()}
    with pytest.raises(WrongPassword):
        await process.broker.sign_in(ADA, PASSWORD, replace=True)  # the provider is asked, though a slot has it
    assert await process.broker.sign_in(ADA, NEW, replace=True) is None
    world.provider.verify(await process.login(password=NEW))


async def test_what_a_consent_replaces_is_kept_with_it(process: Process) -> None:
    waiting = await replacing(process)
    pending = await process.pending.by_state(waiting.state.reveal())
    record = await process.records.load(ADA)
    assert pending is not None
    assert record is not None
    assert pending.replaces == record.lockbox.public_key
    assert parse_pending(dump_pending(pending)) == pending
