"""Who may log in: which ports set a first password, who may connect, how many, and devices that cannot log in."""

from __future__ import annotations

import asyncio
import dataclasses
import imaplib
import smtplib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness.clients import Clients
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import emailproxy
from tests.e2e.harness.tenant import tenant
from tests.e2e.harness.world import PASSWORD, USER, write_config
from tests.e2e.harness.world import world as start_world

ELSEWHERE = "127.0.0.9"
"""Another machine's address, for all that the proxy knows."""
BOB, CARL = "bob@example.com", "carl@example.com"
DENY: dict[str, object] = {"first_login": "deny"}


def log_in_imap(port: int, user: str = USER, host: str = "127.0.0.1") -> None:
    with imaplib.IMAP4(host, port) as client:
        client.login(user, PASSWORD)


def log_in_smtp(port: int, user: str = USER, host: str = "127.0.0.1", source: str = "127.0.0.1") -> None:
    with smtplib.SMTP(host, port, source_address=(source, 0)) as client:
        client.login(user, PASSWORD)


async def test_ports_and_accounts_say_who_may_come(tmp_path: Path) -> None:
    denying, limited, imap6, smtp6 = free_ports(4)
    listeners: dict[str, dict[str, object]] = {
        f"IMAP-{denying}": DENY,
        f"SMTP-{limited}": {"allow_from": f"{ELSEWHERE}, ::1"},
        f"IMAP-{imap6}": {"local_address": "::1"},
        f"SMTP-{smtp6}": {"local_address": "::1"},
    }
    accounts: dict[str, dict[str, object]] = {BOB: DENY, CARL: {"allow_from": ELSEWHERE}}
    async with tenant(tmp_path, listeners=listeners, accounts=accounts) as ours:
        for port, user in ((denying, USER), (ours.imap, BOB)):
            with pytest.raises(imaplib.IMAP4.error, match=f"does not set the first one; run 'emailproxy auth.* {user}"):
                await asyncio.to_thread(log_in_imap, port, user)
        assert ours.provider.requests == []
        assert list((tmp_path / "state" / "accounts").glob("*.ini")) == []
        claim = ("authorize", BOB, "--password-file", "-", "--no-check", "--config", tmp_path / "emailproxy.ini")
        claimed = await emailproxy(*claim, home=tmp_path, stdin=PASSWORD.encode())
        assert claimed.code == 0, claimed.output
        for port in (denying, ours.imap):
            await asyncio.to_thread(log_in_imap, port, BOB)

        with pytest.raises(smtplib.SMTPAuthenticationError, match=r"not allowed from 127\.0\.0\.1"):
            await asyncio.to_thread(log_in_smtp, ours.smtp, CARL)
        await asyncio.to_thread(log_in_smtp, ours.smtp, CARL, source=ELSEWHERE)
        with pytest.raises(smtplib.SMTPConnectError, match="allow_from"):
            await asyncio.to_thread(log_in_smtp, limited)
        await asyncio.to_thread(log_in_smtp, limited, source=ELSEWHERE)

        await asyncio.to_thread(log_in_imap, imap6, host="::1")
        await asyncio.to_thread(log_in_smtp, smtp6, host="::1", source="::1")
        await ours.proxy.printed(rf"Starting IMAP server at \[::1\]:{imap6} \(unsecured\)")
        users = [attempt.user for attempt in ours.server.attempts if attempt.accepted]
        assert users == [BOB, BOB, CARL, USER, USER, USER]


def admitted(connect: Callable[[], imaplib.IMAP4]) -> imaplib.IMAP4:
    """Connects once there is room: the server may not have seen yet that somebody left."""
    deadline_s = time.monotonic() + 10
    while True:
        try:
            return connect()
        except imaplib.IMAP4.error:
            assert time.monotonic() < deadline_s


async def test_so_many_connections_and_no_more(tmp_path: Path) -> None:
    async with tenant(tmp_path, settings={"max_connections": 4, "max_unauthenticated": 2}) as ours:

        def connected() -> imaplib.IMAP4:
            return imaplib.IMAP4("127.0.0.1", ours.imap)

        def fill_up() -> None:
            silent = [connected(), connected()]
            for refused in (connected, ours.log_in_smtp):
                with pytest.raises((imaplib.IMAP4.error, smtplib.SMTPConnectError), match="have not logged in"):
                    refused()
            for client in silent:
                client.login(USER, PASSWORD)  # who was let in may go on, and makes room
            more = [connected(), connected()]
            for client in more:
                client.login(USER, PASSWORD)
            with pytest.raises(imaplib.IMAP4.error, match="too many connections; try again later"):
                connected()
            silent.pop().logout()
            again = admitted(connected)
            again.login(USER, PASSWORD)
            for client in (*silent, *more, again):
                assert client.select()[0] == "OK"
                client.logout()

        await asyncio.to_thread(fill_up)
        await ours.proxy.printed(r"from 127\.0\.0\.1\b.* turned away")


async def test_a_catch_all_of_an_application_does_not_start_for_the_first_comer(tmp_path: Path) -> None:
    [port] = free_ports(1)
    sections: dict[str, dict[str, object]] = {
        "emailproxy": {"allow_catch_all_accounts": True, "state_dir": tmp_path / "state", "log_file": tmp_path / "log"},
        f"IMAP-{port}": {
            "server_address": "outlook.office365.com",
            "server_port": 993,
            "local_address": "192.0.2.1",
            "allow_plaintext_from": "192.0.2.0/24",
            "first_login": "trust",
        },
        "@example.com": {
            "token_url": "https://login.example.com/token",
            "oauth2_scope": "https://outlook.office365.com/.default",
            "oauth2_flow": "client_credentials",
            "client_id": "an-application",
            "client_secret": "a-secret-canary",
        },
    }
    config = write_config(tmp_path / "emailproxy.ini", sections)
    refused = await emailproxy("serve", "--config", config, home=tmp_path)
    assert refused.code == 78
    [line] = [line for line in refused.output.splitlines() if "first_login" in line]
    assert f"[IMAP-{port}]" in line
    assert "open any mailbox by being the first to name it" in line
    assert "write deny" in line
    assert "canary" not in refused.output


@pytest.mark.system("dovecot", "swaks")
async def test_a_device_that_cannot_log_in_sends_as_one_account(tmp_path: Path, clients: Clients) -> None:
    [device] = free_ports(1)
    stored = tmp_path / "scanner"
    stored.touch(0o600)
    stored.write_text(f"{PASSWORD}\n")
    async with start_world(tmp_path, application_claims={"email": USER}) as world:
        opened = {"login_as": USER, "login_as_password_file": stored, "allow_from": "127.0.0.1"}
        section = world.servers[f"SMTP-{world.local.smtp}"] | opened
        config = world.configure(**{f"SMTP-{device}": section, USER: world.application})
        async with world.proxy(config) as proxy:
            for mechanism in ("", "", "LOGIN"):  # who has a login is welcome, too
                sent = await clients.swaks(device, BOB, mechanism)
                assert sent.code == 0, sent.output
                mail = await world.sink.next()
                assert (mail.sender, mail.recipients) == (USER, (BOB,))
            abroad = await clients.swaks(device, BOB, source=ELSEWHERE)
            assert (abroad.code != 0, "allow_from" in abroad.output) == (True, True), abroad.output
            wrong = await dataclasses.replace(clients, password="not the password").swaks(device, BOB, "LOGIN")
            assert "535 5.7.8" in wrong.output, "a wrong login is no missing one"
            elsewhere = await clients.swaks(world.local.smtp, BOB)
            assert "530 5.7.0" in elsewhere.output, elsewhere.output
        assert PASSWORD not in proxy.log
    assert len(world.sink.mails) == 3
