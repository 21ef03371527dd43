"""Client secrets that are not in the configuration: sealed into the record, or the login's own password."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from emailproxy.config.model import FlowName
from emailproxy.config.sources import FromEnvironment, FromRecord
from emailproxy.errors import AccountUnusable, ConsentRequired, ProviderRefused, WrongPassword
from emailproxy.oauth.broker import BrokerSettings
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.records import with_client_secret
from emailproxy.oauth.secrets import Secrets
from emailproxy.secret import Secret
from tests.oauth.world import ADA, CLIENT_SECRET, PASSWORD, WRONG, Process, World, browse, no_space

NOTICE = f"the client_secret of {ADA} is sealed in the state folder now"
SECRET = Secret(CLIENT_SECRET)


def removed(world: World, **changes: Any) -> None:
    """The secret is taken out of the configuration."""
    world.account(**{"client_secret": None, **changes})


async def sealed(world: World, **changes: Any) -> Process:
    """A process that has sealed an account's client secret."""
    world.account(**changes)
    process = await world.process(wait_s=0, seal_client_secrets=True, keeps=True)
    if changes.get("flow") is None:
        await world.signed_in(process)
    await process.login()
    return process


async def test_the_first_accepted_login_seals_it(world: World, caplog: pytest.LogCaptureFixture) -> None:
    process = await sealed(world)
    assert [text for text in caplog.messages if text.startswith(NOTICE)]
    for number in range(3):
        await process.login(session=f"s{number}")
    assert len([text for text in caplog.messages if text.startswith(NOTICE)]) == 1
    assert all(CLIENT_SECRET.encode() not in data for data in world.files().values())

    removed(world)
    for _ in range(2):  # the login asks, and then the keeper does: a renewal keeps the secret
        world.turned.turn(3000)
        await process.kept()
        world.provider.verify(await process.login())
    later = await world.process(keeps=True)
    world.turned.turn(3600)
    world.provider.verify(await later.login())
    world.turned.turn(3000)
    await later.kept()
    assert world.grants()[1:] == ["refresh_token"] * 4
    assert all(request.status == 200 for request in world.provider.requests)


async def test_a_secret_that_was_changed_in_the_configuration_counts_and_is_sealed_anew(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    process = await sealed(world)
    world.account(client_secret=WRONG)
    world.turned.turn(3600)
    with pytest.raises(ProviderRefused):
        await process.login()
    world.account()
    world.turned.turn(60)
    await process.login()
    assert len([text for text in caplog.messages if text.startswith(NOTICE)]) == 1
    world.account(client_secret=WRONG)
    await process.login()  # its token works still
    assert len([text for text in caplog.messages if text.startswith(NOTICE)]) == 2
    held = process.broker._holdings.get(ADA)
    assert held is not None
    assert held.client_secret == WRONG


async def test_only_plaintext_of_the_configuration_is_sealed(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CANARY", CLIENT_SECRET)
    await sealed(world, client_secret=FromEnvironment("CANARY"))
    assert NOTICE not in caplog.text
    world.account()
    without = await world.process()
    await without.login()
    record = await without.records.load(ADA)
    assert record is not None
    assert set(record.sealed) == {"access_token", "refresh_token"}


async def test_a_secret_that_cannot_be_written_yet_is_written_with_the_next_tokens(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.account()
    process = await world.process(seal_client_secrets=True)
    await world.signed_in(process)
    with monkeypatch.context() as full:
        full.setattr("os.replace", no_space)
        await process.login()
    assert NOTICE not in caplog.text
    world.turned.turn(3600)
    await process.login()
    removed(world)
    later = await world.process()
    world.turned.turn(3600)
    world.provider.verify(await later.login())


async def test_tokens_that_could_not_be_written_do_not_undo_what_another_process_sealed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.account()
    process = await world.process()
    await world.signed_in(process)
    await process.login()
    world.turned.turn(3600)
    with monkeypatch.context() as full:
        full.setattr("os.replace", no_space)
        token = await process.login()
    other = await world.process(seal_client_secrets=True)
    record = await other.records.load(ADA)
    assert record is not None
    async with other.records.locked(ADA):
        await other.records.save(with_client_secret(record, SECRET))
    world.turned.turn(60)
    assert await process.login() == token  # and its tokens reach the disk
    removed(world)
    later = await world.process()
    assert await later.login() == token
    world.turned.turn(3600)
    world.provider.verify(await later.login())


async def test_a_sign_in_that_another_process_completes_has_it(world: World) -> None:
    """Whoever completes a consent may not know the record's key: it is kept with the consent, under its `state`."""
    process = await sealed(world)
    removed(world)
    world.provider.revoke_refresh_tokens()
    world.turned.turn(3600)
    with pytest.raises(ConsentRequired) as caught:
        await process.login()
    assert all(CLIENT_SECRET.encode() not in data for data in world.files().values())
    await process.listener.close()
    await process.broker.close()
    other = await world.process()
    await other.broker.resume()
    assert (await browse(caught.value.url)).status == 200
    world.turned.turn(3600)
    world.provider.verify(await other.login())
    assert world.provider.requests[-1].grant == "refresh_token"


async def test_ten_logins_seal_it_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.account()
    process = await world.process(seal_client_secrets=True)
    await world.signed_in(process)
    await asyncio.gather(*(process.login(session=f"s{number}") for number in range(10)))
    assert len([text for text in caplog.messages if text.startswith(NOTICE)]) == 1


async def test_an_application_that_lost_its_secret_says_where_it_is(world: World) -> None:
    secrets = Secrets(Commands())
    with pytest.raises(AccountUnusable, match="sealed under a password that was not given"):
        await secrets.read(FromRecord(), owner=ADA, key="client_secret")
    world.application(client_secret=None)
    process = await world.process()
    with pytest.raises(AccountUnusable, match="nothing to authenticate with; add client_secret"):
        await process.login()


async def test_an_application_uses_its_sealed_secret(world: World) -> None:
    world.application()
    process = await world.process(seal_client_secrets=True, keeps=True)
    await process.login()
    world.application(client_secret=None)
    process.broker.configure(
        BrokerSettings(keep_alive_s=10**6, seal_client_secrets=True, login_password_is_client_secret=True)
    )
    world.turned.turn(3000)
    await process.kept()
    world.turned.turn(3600)
    world.provider.verify(await process.login())
    with pytest.raises(WrongPassword, match="set up with here"):  # it is not the provider's to say
        await process.login(password=WRONG)
    assert {request.status for request in world.provider.requests} == {200}


async def test_a_new_password_of_the_mailbox_keeps_the_sealed_secret(world: World) -> None:
    world.provider.passwords = {ADA: PASSWORD.reveal()}
    grant = {"flow": FlowName.PASSWORD, "permission_url": None}
    world.account(**grant)
    process = await world.process(seal_client_secrets=True)
    await process.login()
    removed(world, **grant)
    new = Secret("canary-new-password")
    world.provider.passwords = {ADA: new.reveal()}
    world.provider.verify(await process.login(password=new))
    later = await world.process()
    world.turned.turn(3600)
    world.provider.verify(await later.login(password=new))
    world.provider.passwords = {ADA: WRONG.reveal()}
    stranger = await world.process()  # it knows neither the former password, nor what is sealed under it
    with pytest.raises(AccountUnusable, match="sealed under a password that was not given"):
        await stranger.login(password=WRONG)


# ---- the login's password as the client secret


@pytest.fixture
async def lending(world: World) -> Process:
    world.application(client_secret=None)
    return await world.process(login_password_is_client_secret=True, keeps=True)


async def test_the_provider_says_which_login_password_is_the_secret(world: World, lending: Process) -> None:
    with pytest.raises(WrongPassword, match=f"the provider does not take this password for {ADA}"):
        await lending.login(password=WRONG)
    assert world.files() == {}
    assert await lending.login(password=SECRET) == await lending.login(password=SECRET)
    assert world.grants() == ["client_credentials"] * 2
    with pytest.raises(WrongPassword):
        await lending.login(password=PASSWORD)
    world.turned.turn(3600)
    await lending.kept()
    assert world.grants() == ["client_credentials"] * 3  # without a login there is no secret to renew with
    world.provider.verify(await lending.login(password=SECRET))
    assert all(CLIENT_SECRET.encode() not in data for data in world.files().values())


async def test_a_new_secret_at_the_provider_is_a_new_password(world: World, lending: Process) -> None:
    await lending.login(password=SECRET)
    new = Secret("canary-new-secret")
    world.provider.clients["test-client"] = replace(world.provider.clients["test-client"], secret=new.reveal())
    world.provider.verify(await lending.login(password=new))
    with pytest.raises(WrongPassword):
        await lending.login(password=SECRET)


async def test_a_secret_of_its_own_comes_first(world: World, lending: Process) -> None:
    world.application()
    world.provider.verify(await lending.login(password=PASSWORD))
    assert world.provider.requests[-1].status == 200


async def test_other_grants_do_not_lend_the_password(world: World, lending: Process) -> None:
    world.account(client_secret=None, flow=FlowName.AUTHORIZATION_CODE)
    waiting = await lending.broker.sign_in(ADA, SECRET)
    assert waiting is not None
    assert (await browse(waiting.url)).status == 400  # invalid_client: the password is not sent
