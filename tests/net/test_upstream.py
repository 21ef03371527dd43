"""From the proxy to the server: where its TLS is not sound it gets no credentials, and the client is told why."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from emailproxy.config.model import MailProtocol
from emailproxy.demo.certificates import Authority
from tests.e2e.harness.ports import refusing
from tests.net.loops import on_both_loops
from tests.net.stubs import GREETING, LOGIN, proxy_to, upstream_server

BAD_CERTIFICATES = {
    "another authority": ("localhost", {}, "localhost", False),
    "wrong host": ("mail.example.com", {}, "localhost", True),
    "expired": ("localhost", {"expired": True}, "localhost", True),
    "self-signed": ("localhost", {"self_signed": True}, "localhost", True),
}


@pytest.mark.parametrize("case", BAD_CERTIFICATES)
@pytest.mark.parametrize("starttls", [False, True], ids=["TLS", "STARTTLS"])
@on_both_loops
async def test_a_bad_certificate_gets_no_credentials(
    authority: Authority, tmp_path: Path, case: str, starttls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    name, flaws, host, trusted = BAD_CERTIFICATES[case]
    context = authority.issue(name, **flaws).server_context()
    ca_file = authority.certificate_file
    if not trusted:
        (tmp_path / "other").mkdir()
        ca_file = Authority.create(tmp_path / "other").certificate_file
    heard = bytearray()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n")
        if starttls:
            command = await reader.readline()
            writer.write(command.split()[0] + b" OK go\r\n")
            await writer.start_tls(context)
        heard.extend(await reader.read(100))

    async with (
        upstream_server(handler, None if starttls else context) as port,
        proxy_to(port, ca_file, starttls=starttls, host=host) as proxy,
    ):
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(LOGIN)
        reply = await reader.readline()
        assert reply.startswith(b"a NO [UNAVAILABLE] the certificate of localhost is not valid: ")
        writer.close()
    assert not heard
    assert "the certificate of localhost is not valid" in caplog.text


STARTTLS_SCRIPTS = {
    MailProtocol.IMAP: (
        [b"* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n", b"EP OK go\r\n* CAPABILITY X\r\n"],
        LOGIN,
        b"a NO",
    ),
    MailProtocol.POP: ([b"+OK hi\r\n", b"+OK go\r\n+OK X\r\n"], b"USER u\r\nPASS secret\r\n", b"-ERR [SYS/TEMP]"),
    MailProtocol.SMTP: (
        [b"220 hi\r\n", b"250-x\r\n250 STARTTLS\r\n", b"220 go\r\n250 X\r\n"],
        b"AUTH PLAIN AHUAc2VjcmV0\r\n",
        b"454 4.7.0",
    ),
}


@pytest.mark.parametrize("protocol", STARTTLS_SCRIPTS)
@on_both_loops
async def test_octets_behind_starttls_end_the_connection(
    authority: Authority, ca_file: Path, protocol: MailProtocol
) -> None:
    script, login, code = STARTTLS_SCRIPTS[protocol]
    heard = bytearray()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(script[0])
        for reply in script[1:]:
            heard.extend(await reader.readline())
            writer.write(reply)
        heard.extend(await reader.read())

    async with (
        upstream_server(handler, None) as port,
        proxy_to(port, ca_file, protocol=protocol, starttls=True) as proxy,
    ):
        proxy.has_seen("IMAP4REV1")  # the dial waits for the client
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(login)
        replies = await reader.read()
        assert code in replies
        assert b"tampered" in replies
        writer.close()
    assert b"token" not in heard
    assert b"AUTH" not in heard.replace(b"STARTTLS", b"")


@pytest.mark.parametrize("protocol", STARTTLS_SCRIPTS)
@on_both_loops
async def test_starttls_that_is_refused_ends_without_credentials(ca_file: Path, protocol: MailProtocol) -> None:
    script, login, code = STARTTLS_SCRIPTS[protocol]
    refusal = {MailProtocol.IMAP: b"EP BAD no\r\n", MailProtocol.POP: b"-ERR no\r\n", MailProtocol.SMTP: b"454 no\r\n"}
    heard = bytearray()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(script[0])
        for reply in [*script[1:-1], refusal[protocol]]:
            heard.extend(await reader.readline())
            writer.write(reply)
        heard.extend(await reader.read(100))

    async with (
        upstream_server(handler, None) as port,
        proxy_to(port, ca_file, protocol=protocol, starttls=True) as proxy,
    ):
        proxy.has_seen("IMAP4REV1")
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(login)
        reply = await reader.readuntil(code)
        assert reply
        writer.transport.abort()
        await proxy.listener._empty.wait()
    assert heard.count(b"\r\n") == len(script) - 1


@on_both_loops
async def test_nobody_listens_upstream(ca_file: Path) -> None:
    with refusing() as nobody:
        async with proxy_to(nobody, ca_file) as proxy:
            reader, writer = await proxy.connect()
            assert (await reader.readline()).startswith(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=LOGIN]")
            writer.write(LOGIN)
            reply = await reader.readline()
            assert reply.startswith(b"a NO [UNAVAILABLE] the mail server localhost:")
            writer.write(LOGIN)
            assert (await reader.readline()).startswith(b"a NO [UNAVAILABLE]")
            writer.close()


@on_both_loops
async def test_a_name_that_does_not_exist(ca_file: Path) -> None:
    async with proxy_to(993, ca_file, host="no-such-host.invalid") as proxy:
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(LOGIN)
        assert b"the name no-such-host.invalid cannot be looked up" in await reader.readline()
        writer.close()


@on_both_loops
async def test_plaintext_where_tls_is_expected_is_explained(ca_file: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        await reader.read()

    async with upstream_server(handler, None) as port, proxy_to(port, ca_file) as proxy:
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(LOGIN)
        assert b"does not speak TLS on this port: check server_port and server_starttls" in await reader.readline()
        writer.close()
