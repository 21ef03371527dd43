"""One port for all providers: the login says where it goes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from emailproxy.config.model import MailProtocol, MailServer, Route
from emailproxy.demo.certificates import Authority
from emailproxy.errors import UnknownAccount
from emailproxy.net.seen import MAX_SEEN, Seen
from emailproxy.wire.events import Login, Visit
from tests.net.loops import on_both_loops
from tests.net.stubs import Handler, proxy_to, upstream_server

HERE, THERE = MailServer("mail.example.com", 993), MailServer("mail.example.org", 993)


def test_common_is_what_all_offer() -> None:
    seen = Seen()
    assert seen.common("IMAP") is None
    seen.learn("IMAP", HERE, ("IMAP4REV1", "IDLE", "MOVE"))
    seen.learn("POP", HERE, ("TOP",))
    assert seen.common("IMAP") == ("IMAP4REV1", "IDLE", "MOVE")
    seen.learn("IMAP", THERE, ("UIDPLUS", "MOVE", "IMAP4REV1"))
    assert seen.common("IMAP") == ("IMAP4REV1", "MOVE")
    assert seen.of("IMAP", THERE) == ("UIDPLUS", "MOVE", "IMAP4REV1")
    assert seen.of("SMTP", THERE) is None


def test_what_is_remembered_is_bounded() -> None:
    seen = Seen()
    for port in range(1, 2 * MAX_SEEN):
        seen.learn("IMAP", MailServer("mail.example.com", port), ("IDLE",))
        seen.learn("IMAP", HERE, ("IDLE",))  # in use: it stays
    assert len(seen._by_server) == MAX_SEEN
    assert seen.of("IMAP", HERE) is not None


def mailbox(name: bytes, capabilities: bytes = b"") -> Handler:
    """An IMAP server that says whose it is; a user named `no` is refused there."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2" + capabilities + b"] ready\r\n")
        while command := await reader.readline():
            tag, word, *_ = command.split()
            if word == b"AUTHENTICATE":
                writer.write(tag + b" OK [CAPABILITY IMAP4rev1] logged in to " + name + b"\r\n")
            else:
                writer.write(tag + b" OK " + name + b"\r\n")

    return handler


async def say(writer: asyncio.StreamWriter, reader: asyncio.StreamReader, command: bytes) -> bytes:
    writer.write(command + b"\r\n")
    return await reader.readline()


@on_both_loops
async def test_each_account_goes_to_its_own_server(authority: Authority, ca_file: Path) -> None:
    context = authority.issue("localhost").server_context()
    async with (
        upstream_server(mailbox(b"one", b" IDLE MOVE"), context) as one,
        upstream_server(mailbox(b"two", b" IDLE UIDPLUS"), context) as two,
        proxy_to(None, ca_file) as proxy,
    ):
        for name, port in (("ada@example.com", one), ("bob@example.org", two)):
            proxy.tokens.routes[name] = Route(name, MailServer("localhost", port))
        greetings = []
        for name, answer in (("ada@example.com", b"one"), ("bob@example.org", b"two"), ("ada@example.com", b"one")):
            reader, writer = await proxy.connect()
            greetings.append(await reader.readline())
            assert (await say(writer, reader, b"a LOGIN %s secret" % name.encode())).endswith(answer + b"\r\n")
            assert await say(writer, reader, b"b NOOP") == b"b OK " + answer + b"\r\n"
            writer.close()
        assert [b" MOVE" in greeting for greeting in greetings] == [False, True, False]
        assert all(b" IDLE" in greeting for greeting in greetings)


@on_both_loops
async def test_another_login_on_the_same_connection_goes_elsewhere(authority: Authority, ca_file: Path) -> None:
    """While the way to the first one's server is still being made, too."""
    context = authority.issue("localhost").server_context()
    met = asyncio.Event()
    left = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.set()
        await reader.read()
        left.set()

    async with (
        upstream_server(silent, None) as one,
        upstream_server(mailbox(b"two"), context) as two,
        proxy_to(None, ca_file) as proxy,
    ):
        proxy.tokens.routes |= {
            "ada@example.com": Route("ada", MailServer("localhost", one)),
            "bob@example.org": Route("bob", MailServer("localhost", two)),
        }
        reader, writer = await proxy.connect()
        await reader.readline()
        proxy.tokens.gate.clear()
        writer.write(b"a LOGIN ada@example.com wrong\r\n")
        await met.wait()
        proxy.tokens.gate.set()
        assert (await reader.readline()).startswith(b"a NO [AUTHENTICATIONFAILED]")
        assert await say(writer, reader, b"b LOGIN bob@example.org secret") == (
            b"b OK [CAPABILITY IMAP4rev1] logged in to two\r\n"
        )
        await left.wait()
        assert len(proxy.shared.seen._by_server) == 1
        writer.close()


@pytest.mark.parametrize(
    ("protocol", "login", "reply"),
    [
        (MailProtocol.IMAP, b"a LOGIN ada secret\r\n", b"a NO [CONTACTADMIN] ada has no imap_server"),
        (MailProtocol.POP, b"AUTH PLAIN AGFkYQBzZWNyZXQ=\r\n", b"-ERR [SYS/PERM] ada has no pop_server"),
        (MailProtocol.SMTP, b"AUTH PLAIN AGFkYQBzZWNyZXQ=\r\n", b"454 4.7.0 ada has no smtp_server"),
    ],
)
@on_both_loops
async def test_an_account_without_a_server(protocol: MailProtocol, login: bytes, reply: bytes) -> None:
    async with proxy_to(None, protocol=protocol) as proxy:
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(login)
        line = await reader.readline()
        assert line.startswith(reply)
        assert b"server_address in [TEST]" in line
        writer.close()
        assert not proxy.tokens.asked


@on_both_loops
async def test_a_login_that_goes_nowhere(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy_to(None) as proxy:

        def nowhere(login: Login, visit: Visit) -> Route:
            raise UnknownAccount(f"no account {login.user} is configured")

        monkeypatch.setattr(proxy.tokens, "route", nowhere)
        reader, writer = await proxy.connect()
        await reader.readline()
        assert (await say(writer, reader, b"a LOGIN eve secret")).startswith(b"a NO [AUTHENTICATIONFAILED] no account")
        writer.close()
        where = f"IMAP (127.0.0.1:{proxy.port}; eve)"
    assert f"{where} Proxy config file entry missing for account eve - aborting login" in caplog.text
    assert "IMAP login refused for eve from 127.0.0.1" in caplog.text


@on_both_loops
async def test_a_section_with_a_server_ignores_the_accounts_own(authority: Authority, ca_file: Path) -> None:
    async with (
        upstream_server(mailbox(b"ours"), authority.issue("localhost").server_context()) as port,
        proxy_to(port, ca_file) as proxy,
    ):
        proxy.tokens.routes["ada"] = Route("ada", HERE)
        reader, writer = await proxy.connect()
        await reader.readline()
        assert (await say(writer, reader, b"a LOGIN ada secret")).endswith(b"ours\r\n")
        writer.close()
