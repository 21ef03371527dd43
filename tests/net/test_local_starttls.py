"""STARTTLS and STLS between the mail program and us, in all three protocols."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path

import pytest

from emailproxy.config.model import LocalStartTls, MailProtocol
from emailproxy.demo.certificates import Authority, Certificate
from emailproxy.net import door, handshake
from tests.net.loops import on_both_loops
from tests.net.stubs import Handler, proxy_to, upstream_server
from tests.net.test_local_tls import ended, files
from tests.net.tlsclient import eager_login

pytestmark = pytest.mark.usefixtures("greeted_soon")

STARTTLS = {
    MailProtocol.IMAP: (b"s STARTTLS\r\n", b"s OK"),
    MailProtocol.POP: (b"STLS\r\n", b"+OK"),
    MailProtocol.SMTP: (b"STARTTLS\r\n", b"220"),
}
LOGIN = {
    MailProtocol.IMAP: (b"a LOGIN user@example.com secret\r\n", b"a OK"),
    MailProtocol.POP: (b"AUTH PLAIN AHVzZXJAZXhhbXBsZS5jb20Ac2VjcmV0\r\n", b"+OK"),
    MailProtocol.SMTP: (b"AUTH PLAIN AHVzZXJAZXhhbXBsZS5jb20Ac2VjcmV0\r\n", b"235"),
}
GREETING = {
    MailProtocol.IMAP: b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] ready\r\n",
    MailProtocol.POP: b"+OK ready\r\n",
    MailProtocol.SMTP: b"220 ready\r\n",
}


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Certificate:
    return authority.issue("localhost", "127.0.0.1")


@pytest.fixture
def greeted_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of these clients begins with TLS."""
    monkeypatch.setattr(door, "HELLO_LOCAL_S", 0.01)


def server(protocol: MailProtocol) -> Handler:
    """A mail server that logs in, and then answers a line with a line."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING[protocol])
        while line := await reader.readline():
            words = line.split()
            match words:
                case [b"CAPA"]:
                    writer.write(b"+OK\r\nSASL XOAUTH2\r\n.\r\n")
                case [b"EHLO", _]:
                    writer.write(b"250-there\r\n250 AUTH XOAUTH2\r\n")
                case [b"AUTH", b"XOAUTH2"]:
                    writer.write(b"+ \r\n")
                    await reader.readline()
                    writer.write(b"+OK in\r\n")
                case [b"AUTH", *_]:
                    writer.write(b"235 2.7.0 in\r\n")
                case [tag, b"AUTHENTICATE", *_]:
                    writer.write(tag + b" OK in\r\n")
                case _:
                    writer.write(line)

    return handler


async def secured(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: MailProtocol, context: ssl.SSLContext
) -> None:
    command, go_ahead = STARTTLS[protocol]
    assert await reader.readline()
    writer.write(command)
    assert (await reader.readline()).startswith(go_ahead)
    await writer.start_tls(context, server_hostname="localhost")


@pytest.mark.parametrize("starttls", [LocalStartTls.OFFERED, LocalStartTls.REQUIRED])
@pytest.mark.parametrize("protocol", list(MailProtocol))
@on_both_loops
async def test_a_login_after_starttls(
    authority: Authority, ca_file: Path, ours: Certificate, protocol: MailProtocol, starttls: LocalStartTls
) -> None:
    login, accepted = LOGIN[protocol]
    async with (
        upstream_server(server(protocol), authority.issue("localhost").server_context()) as port,
        proxy_to(port, ca_file, protocol=protocol, **files(ours, starttls)) as proxy,
    ):
        reader, writer = await proxy.connect()
        if starttls is LocalStartTls.REQUIRED:
            await reader.readline()
            writer.write(login)
            assert not (await reader.readline()).startswith(accepted)
            writer.close()
            reader, writer = await proxy.connect()
        await secured(reader, writer, protocol, authority.client_context())
        writer.write(login)
        assert (await reader.readline()).startswith(accepted)
        writer.write(b"echo\r\n" * 5_000)
        assert await reader.readexactly(6 * 5_000) == b"echo\r\n" * 5_000
        writer.close()
        await proxy.listener._empty.wait()


@on_both_loops
async def test_a_login_in_one_segment_with_the_end_of_the_handshake(
    authority: Authority, ca_file: Path, ours: Certificate
) -> None:
    """asyncio hands it on before it says that the handshake is over."""

    def client(sock: socket.socket) -> bytes:
        sock.recv(1024)
        sock.sendall(b"s STARTTLS\r\n")
        sock.recv(1024)
        return eager_login(sock, authority.client_context(), b"", LOGIN[MailProtocol.IMAP][0], None)

    async with (
        upstream_server(server(MailProtocol.IMAP), authority.issue("localhost").server_context()) as port,
        proxy_to(port, ca_file, **files(ours, LocalStartTls.OFFERED)) as proxy,
    ):
        with socket.create_connection((proxy.host, proxy.port)) as sock:
            assert b"a OK in\r\n" in await asyncio.to_thread(client, sock)


@pytest.mark.parametrize("protocol", list(MailProtocol))
@on_both_loops
async def test_octets_behind_starttls_end_the_connection(ours: Certificate, protocol: MailProtocol) -> None:
    """In one segment, and in the next one, before TLS (CVE-2021-33515): no login goes ahead."""
    command, go_ahead = STARTTLS[protocol]
    login, accepted = LOGIN[protocol]
    async with proxy_to(9, protocol=protocol, **files(ours, LocalStartTls.OFFERED)) as proxy:
        proxy.has_seen("IMAP4REV1")
        for pieces in ((command + login,), (command, login)):
            reader, writer = await proxy.connect()
            heard = await reader.readline()
            for piece in pieces:
                writer.write(piece)
                if len(pieces) > 1 and piece is command:
                    assert (await reader.readline()).startswith(go_ahead)
            with contextlib.suppress(ConnectionError):
                heard += await reader.read()
            assert accepted not in heard.removeprefix(b"+OK emailproxy ready")
            writer.close()
        await proxy.listener._empty.wait()
        assert not proxy.tokens.asked


@on_both_loops
async def test_a_handshake_that_does_not_come(
    ours: Certificate, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "HANDSHAKE_TIMEOUT_S", 0.05)
    async with proxy_to(9, **files(ours, LocalStartTls.OFFERED)) as proxy:
        proxy.has_seen("IMAP4REV1")
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(b"s STARTTLS\r\n")
        assert (await reader.readline()).startswith(b"s OK")
        await ended(reader)
        writer.close()
        await proxy.listener._empty.wait()
        assert proxy.shared.doorman.inside == 0
    assert "no TLS handshake within" in caplog.text


@on_both_loops
async def test_shutting_down_during_the_handshake_says_nothing(ours: Certificate) -> None:
    """What we say in plaintext would be taken for TLS."""
    async with proxy_to(9, **files(ours, LocalStartTls.OFFERED)) as proxy:
        proxy.has_seen("IMAP4REV1")
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(b"s STARTTLS\r\n")
        assert (await reader.readline()).startswith(b"s OK")
        await proxy.listener.close()
        heard = b""
        with contextlib.suppress(ConnectionError):
            heard = await reader.read()
        assert heard == b""
        writer.close()


@on_both_loops
async def test_a_clienthello_that_comes_after_the_greeting_is_explained(
    ours: Certificate, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "HELLO_LOCAL_S", 0.0)
    async with proxy_to(9, **files(ours, LocalStartTls.OFFERED)) as proxy:
        proxy.has_seen("IMAP4REV1")
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(b"\x16\x03\x01\x02\x00\x01")
        await ended(reader)
        writer.close()
    assert "choose STARTTLS" in caplog.text


NAMES = {MailProtocol.IMAP: "imap", MailProtocol.POP: "pop3", MailProtocol.SMTP: "smtp"}


@pytest.mark.system("openssl")
@pytest.mark.parametrize("protocol", list(MailProtocol))
@on_both_loops
async def test_openssl_shakes_hands(
    authority: Authority, ca_file: Path, ours: Certificate, protocol: MailProtocol
) -> None:
    login, accepted = LOGIN[protocol]
    async with (
        upstream_server(server(protocol), authority.issue("localhost").server_context()) as port,
        proxy_to(port, ca_file, protocol=protocol, **files(ours, LocalStartTls.REQUIRED)) as proxy,
    ):
        process = await asyncio.create_subprocess_exec(
            "openssl", "s_client", "-connect", f"127.0.0.1:{proxy.port}", "-starttls", NAMES[protocol], "-quiet",
            "-crlf", "-verify_return_error", "-CAfile", str(ca_file), "-verify_hostname", "localhost",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(login.replace(b"\r\n", b"\n"))
        line = await process.stdout.readline()
        while not line.startswith(accepted):
            assert line, await process.stderr.read()  # type: ignore[union-attr]
            line = await process.stdout.readline()
        process.stdin.write(b"echo\n")
        assert await process.stdout.readline() == b"echo\r\n"
        process.kill()
        await process.communicate()
