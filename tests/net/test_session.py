"""From a client's connection to the relay: logins, refusals and time limits, with real sockets."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import ssl
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from emailproxy.config.model import MailProtocol
from emailproxy.demo.certificates import Authority
from emailproxy.errors import ConsentRequired
from emailproxy.net import session as session_module
from tests.net.loops import on_both_loops
from tests.net.stubs import AT_ONCE, GREETING, LIMITS, LOGIN, accept_login, echo, proxy_before, proxy_to, taken


@on_both_loops
async def test_what_was_pipelined_behind_the_login_arrives(authority: Authority) -> None:
    async with proxy_before(echo, authority) as proxy:
        big = b"b APPEND " + b"x" * 300_000 + b"\r\n"
        reader, writer = await proxy.log_in(LOGIN + big)
        assert await reader.readexactly(len(big)) == big
        assert proxy.tokens.settled == ["user@example.com"]
        writer.close()


@on_both_loops
async def test_a_login_costs_one_round_trip_after_the_greeting(authority: Authority) -> None:
    commands = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands.append(await accept_login(reader, writer))
        commands.append(await reader.read(100))

    async with proxy_before(handler, authority) as proxy:
        _, writer = await proxy.log_in()
        writer.write(b"b NOOP\r\n")
        writer.write_eof()
        await proxy.listener._empty.wait()
        writer.close()
    assert [command.split()[:3] for command in commands] == [
        [b"a", b"AUTHENTICATE", b"XOAUTH2"],
        [b"b", b"NOOP"],
    ]


@on_both_loops
async def test_a_silent_client_costs_the_server_nothing(authority: Authority) -> None:
    connected = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        await accept_login(reader, writer)
        await reader.read()

    async with proxy_before(handler, authority) as proxy:
        _, first = await proxy.log_in()  # the capabilities are known from here on
        silent = [await proxy.connect() for _ in range(3)]
        for reader, _ in silent:
            assert (await reader.readline()).startswith(b"* OK [CAPABILITY IMAP4rev1")
        assert connected == 1
        for _, writer in [*silent, (None, first)]:
            writer.transport.abort()


@on_both_loops
async def test_a_refused_token_is_replaced_on_the_same_connection(authority: Authority) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        await reader.readline()
        writer.write(b"+ eyJzdGF0dXMiOiI0MDAifQ==\r\n")
        assert await reader.readline() == b"\r\n"
        writer.write(b"a NO AUTHENTICATE failed\r\n")
        command = await reader.readline()
        writer.write(command.split()[0] + b" OK in\r\n")
        await reader.read()

    async with proxy_before(handler, authority) as proxy:
        _, writer = await proxy.log_in()
        assert proxy.tokens.asked == [
            ("user@example.com", None),
            ("user@example.com", "NO AUTHENTICATE failed (status 400)"),
        ]
        writer.close()


@on_both_loops
async def test_a_server_that_hangs_up_after_its_refusal_is_dialled_once_more(authority: Authority) -> None:
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(GREETING)
        await reader.readline()
        if connections == 1:
            writer.write(b"a NO AUTHENTICATE failed\r\n* BYE bye\r\n")
            return
        writer.write(b"a OK in\r\n")
        await reader.read()

    async with proxy_before(handler, authority) as proxy:
        _, writer = await proxy.log_in()
        assert connections == 2
        writer.close()


@on_both_loops
async def test_a_client_that_leaves_ends_its_session(authority: Authority) -> None:
    gone = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        assert await reader.read() == b""
        gone.set()

    async with proxy_before(handler, authority) as proxy:
        proxy.tokens.gate.clear()
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(LOGIN)
        await proxy.tokens.asked_one.wait()
        writer.transport.abort()
        await gone.wait()
        await proxy.listener._empty.wait()


@on_both_loops
async def test_the_login_deadline(authority: Authority) -> None:
    async with proxy_before(echo, authority, limits=replace(LIMITS, login_timeout_s=0.2)) as proxy:
        proxy.has_seen("IMAP4REV1")
        reader, writer = await proxy.connect()
        assert re.fullmatch(rb"(\* OK .*\r\n)?\* BYE the login took too long\r\n", await reader.read())
        writer.close()


@on_both_loops
async def test_the_deadline_waits_for_a_consent(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "GRACE_S", 0.2)
    async with proxy_before(echo, authority, limits=replace(LIMITS, login_timeout_s=0.3)) as proxy:
        proxy.has_seen("IMAP4REV1")
        proxy.tokens.gate.clear()
        proxy.tokens.error = ConsentRequired("sign in first")
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(LOGIN)
        session = next(iter(proxy.listener._sessions))
        while not session._overdue:
            await asyncio.sleep(0)
        proxy.tokens.gate.set()
        assert await reader.readline() == b"a NO [UNAVAILABLE] sign in first\r\n"
        assert await reader.read() == b"* BYE the login took too long\r\n"
        writer.close()


@on_both_loops
async def test_last_words_arrive_although_the_client_still_sends(authority: Authority) -> None:
    """A close over unread input would reset the connection and lose the reply."""
    async with proxy_before(echo, authority) as proxy:
        proxy.has_seen("IMAP4REV1")
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(b"A" * 300_000)
        assert (await reader.read()).startswith(b"* BAD a line of more than 8192 octets")
        writer.close()


@on_both_loops
async def test_a_client_that_reads_no_replies_is_not_read_from(authority: Authority) -> None:
    async with proxy_before(echo, authority) as proxy:
        _, writer = await proxy.connect(limit=1024)
        writer.transport.set_write_buffer_limits(high=0)
        sent = 0
        while await taken(writer, b"a CAPABILITY\r\n" * 1000):
            sent += 14_000
            assert sent < 64 << 20
        session = next(iter(proxy.listener._sessions))
        assert session.client.wire is not None
        assert session.client.wire.transport.get_write_buffer_size() < 16 << 20
        writer.transport.abort()


RESETS = {
    "at once": b"",
    "in a line": b"a LOGIN us",
    "in a literal": b"a LOGIN {30}\r\nuser",
    "while the token is awaited": b"a LOGIN user@example.com wait\r\n",
    "after a refusal": b"a LOGIN user@example.com wrong\r\n",
    "in the relay": LOGIN,
}


@on_both_loops
async def test_resets_in_every_state_leave_nothing_open(authority: Authority) -> None:
    async with proxy_before(echo, authority) as proxy:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            for sent in RESETS.values():
                if sent.endswith(b"wait\r\n"):
                    proxy.tokens.gate.clear()
                    proxy.tokens.asked_one.clear()
                reader, writer = await proxy.connect()
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await reader.readline()
                writer.write(sent)
                if sent.endswith(b"wait\r\n"):
                    await proxy.tokens.asked_one.wait()
                elif sent.endswith(b"\r\n"):
                    await reader.readline()
                writer.transport.abort()
                proxy.tokens.gate.set()
        await proxy.listener._empty.wait()
        assert not proxy.shared.doorman._by_address
        while len(os.listdir("/proc/self/fd")) > before:
            await asyncio.sleep(0)


@on_both_loops
async def test_too_many_connections(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    async with proxy_before(echo, authority, limits=replace(LIMITS, max_connections=2)) as proxy:
        kept = [await proxy.connect() for _ in range(2)]
        for reader, _ in kept:
            await reader.readline()
        reader, writer = await proxy.connect()
        assert await reader.read() == b"* BYE [LIMIT] too many connections; try again later\r\n"
        writer.close()
        for _, writer in kept:
            writer.transport.abort()
        await proxy.listener._empty.wait()
        reader, writer = await proxy.connect()
        assert (await reader.readline()).startswith(b"* OK")
        writer.close()
    assert "turned away" in caplog.text


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        (MailProtocol.IMAP, b"* BYE [LIMIT] too many connections from your address"),
        (MailProtocol.POP, b"-ERR [IN-USE] too many connections from your address"),
        (MailProtocol.SMTP, b"421 4.7.0 too many connections from your address"),
    ],
)
@on_both_loops
async def test_too_many_connections_from_one_address(ca_file: Path, protocol: MailProtocol, words: bytes) -> None:
    async with proxy_to(9, ca_file, protocol=protocol, limits=replace(LIMITS, max_connections_per_address=0)) as proxy:
        reader, writer = await proxy.connect()
        assert (await reader.read()).startswith(words)
        writer.close()


@on_both_loops
async def test_shutting_down_tells_clients_and_ends_relays(authority: Authority) -> None:
    async with proxy_before(echo, authority) as proxy:
        reader, writer = await proxy.connect()
        await reader.readline()
        relayed, relayed_writer = await proxy.log_in()
        closing = asyncio.ensure_future(proxy.listener.close(AT_ONCE))
        assert await reader.read() == b"* BYE emailproxy is shutting down; try again later\r\n"
        assert await relayed.read() == b""
        writer.close()
        relayed_writer.close()
        await closing


@on_both_loops
async def test_one_line_an_outcome_without_secrets(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "emailproxy")
    async with proxy_before(echo, authority) as proxy:
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(b"a LOGIN user@example.com canary-wrong\r\n" + LOGIN)
        assert (await reader.readline()).startswith(b"a NO [AUTHENTICATIONFAILED]")
        assert (await reader.readline()).startswith(b"a OK")
        session = proxy.tokens.visits[0].session
        writer.close()
    outcomes = [record.getMessage() for record in caplog.records if " login " in record.getMessage()]
    who = f"IMAP (127.0.0.1:{proxy.port}; user@example.com)"
    assert [line.split(",")[0] for line in outcomes] == [
        f"{who} Invalid password to decrypt credentials for account user@example.com - aborting login: "
        "IMAP login refused for user@example.com from 127.0.0.1",
        f"{who} [ Successfully authenticated IMAP connection - releasing session ] "
        "IMAP login accepted for user@example.com from 127.0.0.1",
    ]
    assert all(f"[session {session}]" in line and " ms " in line for line in outcomes)
    assert "canary-wrong" not in caplog.text
    assert "token-" not in caplog.text


@on_both_loops
async def test_tls_at_the_plaintext_port_is_named_in_the_log(ca_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with proxy_to(9, ca_file) as proxy:
        proxy.has_seen("IMAP4REV1")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await proxy.connect(ssl=ssl.create_default_context())
    assert "speaks TLS, but this port is plaintext" in caplog.text
