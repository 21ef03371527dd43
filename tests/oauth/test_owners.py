"""Mailboxes that are served by somebody else's sign-in (`token_owner`), and as whom they log in upstream."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_network

import pytest

from emailproxy.config.model import FirstLogin, FlowName, MailServer
from emailproxy.errors import ConsentRequired, UnknownAccount, WrongPassword
from emailproxy.oauth.broker import sasl_user
from emailproxy.oauth.happenings import Event
from emailproxy.oauth.keyring import Keyring
from emailproxy.wire.events import LOCAL, Login
from tests.oauth.world import ADA, PASSWORD, WRONG, Process, World, account_at, browse, visit_of

INFO, SALES = "info@example.org", "Sales@Example.org"
MAILBOXES = (ADA, INFO, SALES)


def owned(world: World) -> None:
    world.account(ADA)
    for name, owner in ((INFO, ADA), (SALES, "Ada@Example.org")):
        world.account(name, token_owner=owner)


async def refused(process: Process, name: str, **visit: object) -> ConsentRequired:
    with pytest.raises(ConsentRequired) as caught:
        await process.login(name, **visit)
    return caught.value


async def test_one_sign_in_serves_all_mailboxes(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "emailproxy.oauth")
    owned(world)
    process = await world.process(wait_s=0)
    asked = [await refused(process, name) for name in (INFO, SALES, ADA)]
    assert len({error.url for error in asked}) == 1, "each was sent somewhere else"
    assert str(asked[0]) == f"{ADA} must sign in: open {asked[0].link} in a browser, then try again"
    assert str(asked[1]).startswith("Ada@Example.org must sign in: ")
    assert str(asked[2]).startswith(f"{ADA} must be signed in: ")
    assert f"Authorisation request received for {INFO} (local server auth mode)" in caplog.messages
    assert f"Please visit the following URL to authenticate account {ADA}: {asked[0].url}" in caplog.messages
    assert [(told.event, told.account) for told in process.told] == [(Event.CONSENT_REQUIRED, ADA)]
    assert (await browse(asked[0].url)).status == 200
    assert len({await process.login(name) for name in MAILBOXES}) == 1
    assert [name for name in world.files() if name.startswith("accounts/")] == ["accounts/ada@example.org.ini"]
    assert world.grants() == ["authorization_code"]
    for name in MAILBOXES:
        with pytest.raises(WrongPassword):
            await process.login(name, WRONG)


async def test_the_link_of_one_mailbox_is_another_process_s_too(world: World) -> None:
    owned(world)
    first, second = await world.process(wait_s=0), await world.process(wait_s=0)
    url = (await refused(first, INFO)).url
    assert (await refused(second, SALES)).url == url
    del world.accounts[INFO]  # whoever began it is gone: the others are told of a link that works
    again = await refused(second, SALES)
    assert again.url != url
    assert (await browse(again.url)).status == 200
    world.provider.verify(await second.login(ADA))


async def test_a_mailbox_without_an_account_of_its_owner_is_served_alike(world: World) -> None:
    world.account(INFO, token_owner=ADA)
    process = await world.process()
    waiting = await process.broker.sign_in(INFO, PASSWORD)
    assert waiting is not None
    assert (await browse(waiting.url)).status == 200
    world.turned.turn(3600)
    await process.login(INFO)
    with pytest.raises(UnknownAccount):
        await process.login(ADA)
    assert [(told.event, told.account) for told in process.told] == [
        (Event.CONSENT_REQUIRED, ADA),
        (Event.TOKEN_REFRESHED, ADA),
    ]


@pytest.fixture
async def owner(world: World) -> Process:
    """A process that has unlocked nothing yet, of a folder whose owner signed in and whose tokens have ended."""
    owned(world)
    await world.signed_in(await world.process())
    world.turned.turn(3600)
    return await world.process(keeps=True)


async def test_ten_logins_to_as_many_mailboxes_cost_one_derivation_and_one_request(
    world: World, owner: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"shared{number}@example.org" for number in range(10)]
    for name in names:
        world.account(name, token_owner=ADA)
    derived, derive = [], Keyring._derive

    async def counted(self: Keyring, work: object) -> object:
        derived.append(work)
        return await derive(self, work)  # type: ignore[arg-type]

    monkeypatch.setattr(Keyring, "_derive", counted)
    tokens = await asyncio.gather(*(owner.login(name, session=name) for name in names))
    assert len(set(tokens)) == 1
    assert len(derived) == 1
    assert world.grants() == ["authorization_code", "refresh_token"]
    await owner.login(SALES, protocol="SMTP")
    assert len(derived) == 1


async def test_the_keeper_renews_them_once_for_all(world: World, owner: Process) -> None:
    for name in MAILBOXES:
        await owner.login(name)
    before = len(world.grants())
    world.turned.turn(3000)
    await owner.kept()
    assert len(world.grants()) == before + 1
    del world.accounts[SALES.casefold()]  # the one that logged in last
    world.turned.turn(3000)
    await owner.kept()
    assert len(world.grants()) == before + 1
    world.provider.verify(await owner.login(INFO))
    await owner.kept()
    assert len(world.grants()) == before + 2


async def test_an_account_that_gets_another_owner_is_not_renewed_as_before(world: World, owner: Process) -> None:
    await owner.login(INFO)
    before = len(world.grants())
    world.account(INFO, token_owner="eve@example.org")
    world.turned.turn(3000)
    await owner.kept()
    assert len(world.grants()) == before
    assert owner.broker._holdings.get(ADA) is None


USERS = [
    ({}, INFO, INFO),
    ({"token_owner": ADA}, INFO, INFO),
    ({"auth_as": ADA}, ADA, ADA),
    ({"smtp_auth_as": ADA}, INFO, ADA),
    ({"auth_as": "info", "smtp_auth_as": ADA, "token_owner": ADA}, "info", ADA),
]


@pytest.mark.parametrize(("settings", "imap", "smtp"), USERS)
def test_as_whom_a_mailbox_logs_in_upstream(settings: dict[str, str], imap: str, smtp: str) -> None:
    account = account_at("https://provider.example/token", INFO, **settings)
    users = {protocol: sasl_user(account, protocol) for protocol in ("IMAP", "POP", "SMTP")}
    assert users == {"IMAP": imap, "POP": imap, "SMTP": smtp}


@pytest.mark.parametrize("protocol", ["IMAP", "SMTP"])
async def test_the_credential_names_the_user_of_the_protocol(world: World, protocol: str) -> None:
    world.application(INFO, smtp_auth_as=ADA)
    process = await world.process()
    credential = await process.broker.token(Login(INFO, PASSWORD), visit_of(protocol=protocol))
    assert credential.user == {"IMAP": INFO, "SMTP": ADA}[protocol]


# ---- from where


ADDRESSES = [
    ("10.1.2.3", True),
    ("::ffff:10.1.2.3", True),
    ("11.1.2.3", False),
    ("2001:db8::1", True),
    ("2001:db9::1", False),
    ("unknown", False),
    ("", False),
]


@pytest.mark.parametrize(("address", "allowed"), ADDRESSES)
async def test_logins_from_elsewhere_cost_nothing_and_are_not_counted(
    world: World, address: str, allowed: bool
) -> None:
    networks = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    world.application(allow_from=networks, imap_server=MailServer("imap.example.org", 993))
    process = await world.process()
    visit, login = visit_of(address=address), Login(ADA, PASSWORD)
    if allowed:
        assert process.broker.route(login, visit).server == MailServer("imap.example.org", 993)
        assert (await process.broker.token(login, visit)).user == ADA
        return
    for _ in range(200):  # more than may be wrong
        with pytest.raises(WrongPassword, match=rf"^logins of {ADA} are not allowed from {address} \(allow_from\)$"):
            await process.broker.token(login, visit)
    with pytest.raises(WrongPassword, match="not allowed"):
        process.broker.route(login, visit)
    assert world.grants() == []
    await process.login(address="10.9.9.9")
    assert (await process.broker.token(login, LOCAL)).user == ADA  # the command line comes from nowhere


async def test_the_command_line_sets_the_first_password_where_logins_may_not(world: World) -> None:
    world.account(first_login=FirstLogin.DENY)
    process = await world.process(wait_s=0)
    with pytest.raises(WrongPassword, match="emailproxy authorize"):
        await process.login()
    await world.signed_in(process)
    world.provider.verify(await process.login(address="192.0.2.1", may_set=False))


async def test_a_device_code_serves_whoever_shares_it(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for name, owner in ((ADA, None), (INFO, ADA)):
        world.account(name, flow=FlowName.DEVICE, permission_url=world.provider.device_url, token_owner=owner)
    process = await world.process(wait_s=0)
    asked = [await refused(process, name) for name in (INFO, ADA)]
    assert asked[0].url == asked[1].url
    said = [text for text in caplog.messages if text.startswith("Visit ")]
    assert len(said) == 1
    assert said[0].endswith(f" to authenticate account {ADA}")
    assert not any("local server auth mode" in text for text in caplog.messages)
