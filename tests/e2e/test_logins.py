"""The standard library's clients log in through the proxy and work, whatever the server asks for."""

from __future__ import annotations

import asyncio
import imaplib
import poplib
import smtplib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness.world import PASSWORD, USER, Endpoints, World
from tests.e2e.harness.world import world as start_world

pytestmark = pytest.mark.system("dovecot")

MESSAGE = b"Subject: hello\r\n\r\nA line.\r\n"
STORED = MESSAGE.replace(b"\r\n", b"\n")


def imap_login(local: Endpoints) -> imaplib.IMAP4:
    client = imaplib.IMAP4("127.0.0.1", local.imap)
    client.login(USER, PASSWORD)
    return client


def imap_login_starttls(local: Endpoints) -> imaplib.IMAP4:
    client = imaplib.IMAP4("127.0.0.1", local.imap_starttls)
    client.login(USER, PASSWORD)
    return client


def imap_authenticate(local: Endpoints) -> imaplib.IMAP4:
    client = imaplib.IMAP4("127.0.0.1", local.imap)
    assert "AUTH=PLAIN" in client.capabilities
    client.authenticate("PLAIN", lambda _: f"\0{USER}\0{PASSWORD}".encode())
    return client


def imap_cram_is_not_offered(local: Endpoints) -> imaplib.IMAP4:
    client = imaplib.IMAP4("127.0.0.1", local.imap)
    assert not {"AUTH=XOAUTH2", "AUTH=OAUTHBEARER", "AUTH=CRAM-MD5", "LOGINDISABLED"} & set(client.capabilities)
    client.login(USER, PASSWORD)
    return client


@pytest.mark.parametrize("log_in", [imap_login, imap_login_starttls, imap_authenticate, imap_cram_is_not_offered])
async def test_imaplib_appends_and_fetches(world: World, log_in: Callable[[Endpoints], imaplib.IMAP4]) -> None:
    def use_mail() -> None:
        with log_in(world.local) as client:
            assert client.append("INBOX", "", "", MESSAGE)[0] == "OK"
            assert client.select() == ("OK", [b"1"])
            _, [found, _] = client.fetch("1", "(BODY[])")
            assert isinstance(found, tuple)
            assert found[1] == MESSAGE

    async with world.proxy() as proxy:
        await world.sign_in(proxy)
        await asyncio.to_thread(use_mail)
    assert world.server.messages(USER) == [STORED]


async def test_after_the_login_the_capabilities_are_the_servers_own(world: World) -> None:
    def capabilities() -> tuple[set[bytes], set[bytes]]:
        token = world.provider.access_token(USER)
        tls = world.authority.client_context()
        with imaplib.IMAP4_SSL("localhost", world.server.imap.tls, ssl_context=tls) as direct:
            direct.authenticate("XOAUTH2", lambda _: f"user={USER}\x01auth=Bearer {token}\x01\x01".encode())
            expected = set(direct.capability()[1][0].split())
        with imap_login(world.local) as client:
            return set(client.capability()[1][0].split()), expected

    async with world.proxy() as proxy:
        await world.sign_in(proxy)
        found, expected = await asyncio.to_thread(capabilities)
    assert found == expected


@pytest.mark.parametrize("starttls", [False, True])
async def test_poplib_retrieves_and_deletes(world: World, starttls: bool) -> None:
    world.server.deliver(USER, [STORED])

    def use_mail() -> None:
        client = poplib.POP3("127.0.0.1", world.local.pop_starttls if starttls else world.local.pop)
        client.user(USER)
        client.pass_(PASSWORD)
        assert client.stat()[0] == 1
        assert b"\r\n".join(client.retr(1)[1]) + b"\r\n" == MESSAGE
        client.dele(1)
        client.quit()

    async with world.proxy() as proxy:
        await world.sign_in(proxy)
        await asyncio.to_thread(use_mail)
    assert world.server.messages(USER) == []


@pytest.mark.parametrize("mechanism", ["auth_plain", "auth_login"])
@pytest.mark.parametrize("starttls", [False, True])
async def test_smtplib_sends(world: World, starttls: bool, mechanism: str) -> None:
    def send() -> None:
        port = world.local.smtp_starttls if starttls else world.local.smtp
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example.com") as client:
            client.ehlo()
            assert set(client.esmtp_features["auth"].split()) == {"PLAIN", "LOGIN"}
            client.user, client.password = USER, PASSWORD
            client.auth(mechanism.removeprefix("auth_").upper(), getattr(client, mechanism))
            client.sendmail(USER, ["bob@example.com"], MESSAGE)

    async with world.proxy() as proxy:
        await world.sign_in(proxy)
        await asyncio.to_thread(send)
    mail = await world.sink.next()
    assert (mail.sender, mail.recipients) == (USER, ("bob@example.com",))
    assert mail.content.endswith(MESSAGE)


async def test_smtplib_sends_without_more_ado(world: World) -> None:
    def send() -> None:
        with smtplib.SMTP("127.0.0.1", world.local.smtp_starttls) as client:
            client.login(USER, PASSWORD)
            client.sendmail(USER, ["bob@example.com"], MESSAGE)

    async with world.proxy() as proxy:
        await world.sign_in(proxy)
        await asyncio.to_thread(send)
    assert (await world.sink.next()).recipients == ("bob@example.com",)


@pytest.mark.parametrize("mechanism", ["xoauth2", "oauthbearer"])
async def test_every_protocol_uses_the_one_mechanism_that_is_offered(tmp_path: Path, mechanism: str) -> None:
    async with start_world(tmp_path, mechanisms=mechanism) as world:
        world.server.deliver(USER, [STORED])

        def use_mail() -> None:
            for port in (world.local.pop, world.local.pop_starttls):
                pop = poplib.POP3("127.0.0.1", port)
                pop.user(USER)
                pop.pass_(PASSWORD)
                assert pop.stat()[0] == 1
                pop.quit()
            for port in (world.local.smtp, world.local.smtp_starttls):
                with smtplib.SMTP("127.0.0.1", port) as smtp:
                    smtp.login(USER, PASSWORD)
            with imap_login_starttls(world.local):
                pass

        async with world.proxy() as proxy:
            await world.sign_in(proxy)
            await asyncio.to_thread(use_mail)
        log = world.server.log
    assert log.count(f"method={mechanism.upper()}") == 6
    assert log.count("Info: Login: ") == 6


async def test_an_account_with_client_credentials_needs_nobody(tmp_path: Path) -> None:
    async with start_world(tmp_path, application_claims={"email": USER}) as world:

        def use_mail() -> None:
            with imap_login(world.local) as imap:
                assert imap.append("INBOX", "", "", MESSAGE)[0] == "OK"
            with smtplib.SMTP("127.0.0.1", world.local.smtp_starttls) as smtp:
                smtp.login(USER, PASSWORD)
                smtp.sendmail(USER, ["bob@example.com"], MESSAGE)

        async with world.proxy(world.configure(**{USER: world.application})):
            await asyncio.to_thread(use_mail)
        assert [request.grant for request in world.provider.requests] == ["client_credentials"]
        assert world.server.messages(USER) == [STORED]
        assert (await world.sink.next()).sender == USER


async def test_a_wrong_password_is_refused_and_changes_nothing(world: World) -> None:
    def refused() -> str:
        with (
            imaplib.IMAP4("127.0.0.1", world.local.imap) as client,
            pytest.raises(imaplib.IMAP4.error) as caught,
        ):
            client.login(USER, "wrong")
        return str(caught.value)

    async with world.proxy() as proxy:
        await world.sign_in(proxy)
        await last_use_noted(world)
        before = {path: path.read_bytes() for path in world.state.rglob("*") if path.is_file()}
        assert "[AUTHENTICATIONFAILED]" in await asyncio.to_thread(refused)
        after = {path: path.read_bytes() for path in world.state.rglob("*") if path.is_file()}
        assert after == before
        (await asyncio.to_thread(imap_login, world.local)).logout()
    assert len(world.provider.authorizations) == 1


async def last_use_noted(world: World) -> None:
    """The first login is over, but it is written beside it when its password was last used."""
    [record] = world.state.glob("accounts/*.ini")
    async with asyncio.timeout(10):
        while "last_used_s" not in record.read_text():
            await asyncio.sleep(0.02)


async def test_logins_survive_a_restart(world: World) -> None:
    async with world.proxy() as proxy:
        await world.sign_in(proxy)
    async with world.proxy():
        (await asyncio.to_thread(imap_login, world.local)).logout()
    assert len(world.provider.authorizations) == 1
    assert [request.grant for request in world.provider.requests] == ["authorization_code"]
