"""`TokenBroker.sign_in`, with no mail client involved: beside consents that wait already, and their passwords."""

from __future__ import annotations

import pytest

from emailproxy.errors import WrongPassword
from emailproxy.secret import Secret
from tests.oauth.test_consent import OTHER, needs_consent
from tests.oauth.world import ADA, PASSWORD, World, browse


async def test_authorize_replaces_a_first_consent_with_another_password(world: World) -> None:
    world.account()
    server = await world.process(wait_s=0)
    old = await needs_consent(server)
    shell = await world.process()
    new = await shell.broker.sign_in(ADA, OTHER)
    assert new is not None
    assert new.url != old.url
    assert (await browse(old.url)).status == 400
    assert (await browse(new.url)).status == 200
    assert await new.wait(0)
    world.provider.verify(await server.login(password=OTHER))
    with pytest.raises(WrongPassword):
        await server.login()


async def test_authorize_takes_up_the_consent_of_the_same_password(world: World) -> None:
    world.account()
    server = await world.process(wait_s=0)
    old = await needs_consent(server)
    new = await (await world.process()).broker.sign_in(ADA, PASSWORD)
    assert new is not None
    assert (new.url, new.link) == (old.url, old.link)


async def test_authorize_wants_a_password_of_an_account_that_has_one(world: World) -> None:
    world.account()
    process = await world.process()
    await world.signed_in(process)
    before = world.files()
    with pytest.raises(WrongPassword):
        await process.broker.sign_in(ADA, OTHER)
    assert world.files() == before
    with pytest.raises(WrongPassword):
        await process.broker.sign_in(ADA, Secret(""))


async def test_a_record_that_came_meanwhile_keeps_its_slots_and_tokens(world: World) -> None:
    world.account()
    process = await world.process(wait_s=0)
    draft = await needs_consent(process, password=OTHER)
    world.application()
    other = await world.process()
    await other.login()  # meanwhile the account got its record in another way
    record = await other.records.load(ADA)
    assert record is not None
    world.account()
    assert (await browse(draft.url)).status == 400  # who began it does not know the account's password
    assert await other.records.load(ADA) == record
    world.provider.verify(await process.login())
    with pytest.raises(WrongPassword):
        await process.login(password=OTHER)
