"""TLS between the mail program and us: from the first octet, found out, and what comes of a client without it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import select
import socket
import ssl
import threading
import time

import pytest

from emailproxy.config.model import LocalStartTls, MailProtocol
from emailproxy.demo.certificates import Authority, Certificate
from emailproxy.net import door, handshake, relay
from emailproxy.net.admission import COMPLAINT_S
from tests.net.loops import on_both_loops
from tests.net.stubs import LOGIN, Proxy, accept_login, echo, proxy_before, proxy_to, taken

MIB = 1 << 20
BLOCK = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Certificate:
    return authority.issue("localhost", "127.0.0.1")


def files(certificate: Certificate, starttls: LocalStartTls = LocalStartTls.OFF) -> dict[str, object]:
    return {
        "local_certificate": certificate.certificate_file,
        "local_key": certificate.key_file,
        "local_starttls": starttls,
    }


async def log_in(
    proxy: Proxy, authority: Authority, command: bytes = LOGIN, limit: int = 65536
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A mail program that speaks TLS from the first octet."""
    reader, writer = await proxy.connect(ssl=authority.client_context(), limit=limit)
    assert (await reader.readline()).startswith(b"* OK")
    writer.write(command)
    assert (await reader.readline()).startswith(b"a OK")
    return reader, writer


@pytest.mark.parametrize("starttls", list(LocalStartTls))
@on_both_loops
async def test_tls_from_the_first_octet(authority: Authority, ours: Certificate, starttls: LocalStartTls) -> None:
    """On a port for TLS, and found out on a port that offers STARTTLS."""
    async with proxy_before(echo, authority, **files(ours, starttls)) as proxy:
        reader, writer = await log_in(proxy, authority, LOGIN + b"b NOOP\r\n")
        assert await reader.readline() == b"b NOOP\r\n"
        writer.write(BLOCK)
        assert await reader.readexactly(MIB) == BLOCK
        version = writer.get_extra_info("ssl_object").version()
        assert version == "TLSv1.3"
        writer.close()
        await proxy.listener._empty.wait()
        assert proxy.shared.doorman.inside == proxy.shared.doorman.undecided == 0


@on_both_loops
async def test_tls_1_1_is_too_old(authority: Authority, ours: Certificate, caplog: pytest.LogCaptureFixture) -> None:
    context = authority.client_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with proxy_to(9, **files(ours)) as proxy:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await proxy.connect(ssl=context)
        await proxy.listener._empty.wait()
    assert "the client is too old for TLS 1.2" in caplog.text


PLAINTEXT = {"EHLO": b"EHLO there\r\n", "HTTP": b"GET / HTTP/1.1\r\n\r\n"}


@pytest.mark.parametrize("words", PLAINTEXT)
@on_both_loops
async def test_plaintext_at_a_tls_port_is_closed_with_a_hint(
    ours: Certificate, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with proxy_to(9, **files(ours)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(PLAINTEXT[words])
        await ended(reader)
        writer.close()
        await proxy.listener._empty.wait()
    assert caplog.text.count("the client speaks plaintext, but this port speaks TLS from the first octet") == 1
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@on_both_loops
async def test_a_client_that_waits_for_a_plaintext_greeting_is_not_kept(
    ours: Certificate, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "HANDSHAKE_TIMEOUT_S", 0.1)
    async with proxy_to(9, **files(ours)) as proxy:
        reader, writer = await proxy.connect()
        assert await reader.read() == b""
        writer.close()
        await proxy.listener._empty.wait()
    assert "a client that waits for a plaintext greeting must be set to SSL/TLS" in caplog.text


@on_both_loops
async def test_scanners_do_not_fill_the_log(
    authority: Authority, ours: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    began_s = time.monotonic()
    async with proxy_to(9, **files(ours)) as proxy:
        for _ in range(50):
            reader, writer = await proxy.connect()
            writer.write(b"EHLO there\r\n")
            await ended(reader)
            writer.close()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await proxy.connect(ssl=ssl.create_default_context(), server_hostname="localhost")
        await proxy.listener._empty.wait()
    assert 1 <= len(caplog.records) <= 3 + (time.monotonic() - began_s) / COMPLAINT_S


@pytest.mark.parametrize("starttls", [LocalStartTls.OFFERED, LocalStartTls.REQUIRED])
@on_both_loops
async def test_who_does_not_begin_with_tls_hears_the_greeting_soon(
    ours: Certificate, starttls: LocalStartTls, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxy_to(9, **files(ours, starttls)) as proxy:
        proxy.has_seen("IMAP4REV1")
        reader, writer = await proxy.connect()
        assert (await reader.readline()).startswith(b"* OK")
        writer.close()
        monkeypatch.setattr(door, "HELLO_LOCAL_S", 3600)
        reader, writer = await proxy.connect()
        writer.write(b"a NOOP\r\n")  # nor does a client that speaks first wait
        assert (await reader.readline()).startswith(b"* OK")
        assert (await reader.readline()).startswith(b"a OK")
        writer.close()


@on_both_loops
async def test_a_slow_tls_client_gets_the_tail(authority: Authority, ours: Certificate) -> None:
    """1 MB, then the server's end: all of it arrives at a client that reads late."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept_login(reader, writer)
        writer.write(BLOCK)
        await writer.drain()

    async with proxy_before(handler, authority, **files(ours)) as proxy:
        reader, writer = await log_in(proxy, authority, limit=1024)
        received = bytearray()
        while data := await reader.read(1024):
            received += data
            await asyncio.sleep(0)
        assert received == BLOCK
        writer.close()


@on_both_loops
async def test_what_a_tls_client_wrote_last_is_not_lost(authority: Authority, ours: Certificate) -> None:
    """It ends with a bare FIN while we hold it back because the server is slow."""
    received: asyncio.Queue[int] = asyncio.Queue()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept_login(reader, writer)
        received.put_nowait(len(await reader.read()))

    sent = threading.Event()

    def client(port: int, size: int) -> None:
        raw = socket.create_connection(("127.0.0.1", port))
        tls = authority.client_context().wrap_socket(raw, server_hostname="localhost")
        tls.recv(1024)
        tls.sendall(LOGIN)
        tls.recv(1024)
        held.wait()
        tls.sendall(b"x" * size)
        raw_end = socket.socket(fileno=os.dup(tls.fileno()))
        raw_end.shutdown(socket.SHUT_WR)
        raw_end.close()
        sent.set()
        with contextlib.suppress(OSError):
            tls.recv(1)
        tls.close()

    held = threading.Event()
    async with proxy_before(handler, authority, **files(ours)) as proxy:
        writing = asyncio.create_task(asyncio.to_thread(client, proxy.port, 30_000))
        while not proxy.listener.facts().logged_in:
            await asyncio.sleep(0)
        wire = next(iter(proxy.listener._sessions)).client.wire
        assert wire is not None
        wire.pause()
        held.set()
        await asyncio.to_thread(sent.wait)
        for _ in range(20):
            await asyncio.sleep(0)
        wire.resume()
        assert await received.get() == 30_000
        await writing


@on_both_loops
async def test_a_tls_client_that_does_not_read_stops_the_server(authority: Authority, ours: Certificate) -> None:
    stuck, sent = asyncio.Event(), 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await accept_login(reader, writer)
        while await taken(writer, BLOCK):
            sent += MIB
        stuck.set()
        await reader.read()

    async with proxy_before(handler, authority, **files(ours)) as proxy:
        _, writer = await log_in(proxy, authority, limit=1024)
        await stuck.wait()
        assert sent < 32 * MIB  # the kernel's socket buffers, twice, and ours
        wire = next(iter(proxy.listener._sessions)).client.wire
        assert wire is not None
        assert relay.BUFFER_LIMIT <= wire.unsent < MIB
        writer.transport.abort()


@on_both_loops
async def test_last_words_arrive_over_tls_although_the_client_still_sends(
    authority: Authority, ours: Certificate
) -> None:
    def client(port: int) -> bytes:
        raw = socket.create_connection(("127.0.0.1", port), timeout=20)
        with authority.client_context().wrap_socket(
            raw, server_hostname="localhost", suppress_ragged_eofs=False
        ) as tls:
            tls.recv(1024)
            tls.sendall(b"A" * 20_000)
            select.select([tls], [], [])  # we have been told, but go on
            for _ in range(10):
                tls.sendall(b"A" * 20_000)
                time.sleep(0.005)  # a reset would be back by then
            heard = b""
            while data := tls.recv(1024):
                heard += data
            return heard

    async with proxy_to(9, **files(ours)) as proxy:
        proxy.has_seen("IMAP4REV1")
        heard = await asyncio.to_thread(client, proxy.port)
        assert heard.startswith(b"* BAD a line of more than 8192 octets")
        assert heard.endswith(b"* BYE closing\r\n")


@on_both_loops
async def test_shutting_down_cuts_handshakes_and_tells_tls_clients(authority: Authority, ours: Certificate) -> None:
    async with proxy_to(9, **files(ours)) as proxy:
        proxy.has_seen("IMAP4REV1")
        reader, writer = await proxy.connect(ssl=authority.client_context())
        await reader.readline()
        silent, silent_writer = await proxy.connect()
        while proxy.listener.sessions < 2:
            await asyncio.sleep(0)
        closing = asyncio.ensure_future(proxy.listener.close())
        assert await reader.read() == b"* BYE emailproxy is shutting down; try again later\r\n"
        await ended(silent)
        writer.close()
        silent_writer.close()
        await closing


@on_both_loops
async def test_who_only_looks_whether_the_port_is_open_is_not_told_of(
    ours: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    for settings in ({}, {"proxy_protocol_from": (ipaddress.ip_network("127.0.0.0/8"),)}):
        async with proxy_to(9, **files(ours), **settings) as proxy:
            for _ in range(3):
                _, writer = await proxy.connect()
                while not proxy.listener.sessions:
                    await asyncio.sleep(0)
                writer.close()
                await proxy.listener._empty.wait()
    assert not caplog.records


@pytest.mark.parametrize("protocol", list(MailProtocol))
@on_both_loops
async def test_resets_around_the_handshake_leave_nothing_open(ours: Certificate, protocol: MailProtocol) -> None:
    hello = client_hello()
    async with proxy_to(9, protocol=protocol, **files(ours)) as proxy:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            for sent in (b"", hello[:1], hello[:100], hello, hello + b"\x16" * 100, b"\x15" * 50):
                with socket.create_connection((proxy.host, proxy.port)) as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    sock.send(sent)
                    await asyncio.sleep(0)
        while proxy.listener.sessions or proxy.shared.doorman.inside:
            await asyncio.sleep(0)
        await proxy.listener._empty.wait()
        while len(os.listdir("/proc/self/fd")) > before:
            await asyncio.sleep(0)


async def ended(reader: asyncio.StreamReader) -> None:
    """By a FIN or a reset; a TLS alert may come before."""
    with contextlib.suppress(ConnectionError):
        await reader.read()


def client_hello() -> bytes:
    """What a TLS client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()
