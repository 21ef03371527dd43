"""The PROXY protocol in front of a client's octets: whose header counts, and nothing behind it is lost."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct

import pytest

from emailproxy.config.model import LocalStartTls
from emailproxy.demo.certificates import Authority
from emailproxy.net import door
from tests.net.loops import on_both_loops
from tests.net.stubs import GREETING, LOGIN, Proxy, proxy_before, proxy_to
from tests.net.test_local_tls import ended, files
from tests.net.tlsclient import eager_login

HERE = (ipaddress.ip_network("127.0.0.0/8"),)
ELSEWHERE = (ipaddress.ip_network("192.0.2.0/24"),)  # RFC 5737
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + bytes((command, family)) + struct.pack("!H", len(body)) + body


def tcp4(source: str) -> bytes:
    return v2(0x21, 0x11, socket.inet_aton(source) + socket.inet_aton("127.0.0.1") + struct.pack("!HH", 40000, 993))


HEADERS = {
    "v1": (b"PROXY TCP4 198.51.100.7 127.0.0.1 40000 993\r\n", "198.51.100.7"),
    "v1 IPv6": (b"PROXY TCP6 2001:db8::7 ::1 40000 993\r\n", "2001:db8::7"),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    "v2": (tcp4("198.51.100.7"), "198.51.100.7"),
    "v2 and a TLV": (
        v2(0x21, 0x11, tcp4("198.51.100.7")[16:] + b"\x04\x00\x10" + bytes(16)), "198.51.100.7",
    ),
    "v2 LOCAL": (v2(0x20, 0x00, b""), "127.0.0.1"),
}  # fmt: skip


async def log_in(proxy: Proxy, *pieces: bytes) -> None:
    """A client behind a proxy that sends all of it in these pieces."""
    reader, writer = await proxy.connect()
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.001)
    assert (await reader.readline()).startswith(b"* OK")
    assert (await reader.readline()).startswith(b"a OK")
    writer.close()


@pytest.mark.parametrize("name", HEADERS)
@on_both_loops
async def test_the_header_says_where_the_client_is(authority: Authority, name: str) -> None:
    header, source = HEADERS[name]
    splits = [(header + LOGIN,), (header, LOGIN), (header[:7], header[7:] + LOGIN[:3], LOGIN[3:])]
    async with proxy_before(accepting, authority, proxy_protocol_from=HERE) as proxy:
        for pieces in splits:
            await log_in(proxy, *pieces)
        assert [visit.address for visit in proxy.tokens.visits] == [source] * len(splits)


async def accepting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GREETING)
    command = await reader.readline()
    writer.write(command.split()[0] + b" OK in\r\n")
    await reader.read()


@pytest.mark.parametrize("starttls", list(LocalStartTls))
@pytest.mark.parametrize("name", ["v1", "v2"])
@pytest.mark.parametrize("cut", [None, 1], ids=["one segment", "cut in the ClientHello"])
@on_both_loops
async def test_the_clienthello_behind_the_header_is_not_lost(
    authority: Authority, starttls: LocalStartTls, name: str, cut: int | None
) -> None:
    header, source = HEADERS[name]
    ours = authority.issue("localhost")

    async with proxy_before(accepting, authority, proxy_protocol_from=HERE, **files(ours, starttls)) as proxy:
        proxy.has_seen("IMAP4REV1", "SASL-IR", "AUTH=XOAUTH2")
        with socket.create_connection((proxy.host, proxy.port)) as sock:
            heard = await asyncio.to_thread(eager_login, sock, authority.client_context(), header, LOGIN, cut)
        assert heard.startswith(b"* OK")
        assert [visit.address for visit in proxy.tokens.visits] == [source]


WRONG = {
    "none": (b"a NOOP\r\n", "no PROXY protocol header, which this port expects"),
    "none, in a LOGIN": (LOGIN, "no PROXY protocol header, which this port expects"),
    "TLS": (b"\x16\x03\x01\x02\x00", "no PROXY protocol header, which this port expects"),
    "a name": (b"PROXY TCP4 localhost 127.0.0.1 1 2\r\n", "header that is not TCP4"),
    "too long": (b"PROXY UNKNOWN " + b"x" * 200, "header of more than 107 octets"),
    "another version": (v2(0x31, 0x11, bytes(12)), "unknown version"),
}


@pytest.mark.parametrize("name", WRONG)
@on_both_loops
async def test_a_wrong_header_closes_with_a_hint(name: str, caplog: pytest.LogCaptureFixture) -> None:
    sent, hint = WRONG[name]
    async with proxy_to(9, proxy_protocol_from=HERE) as proxy:
        reader, writer = await proxy.connect()
        writer.write(sent)
        await ended(reader)
        writer.close()
        await proxy.listener._empty.wait()
        assert proxy.shared.doorman.inside == 0
    assert hint in caplog.text


@on_both_loops
async def test_a_missing_header_is_not_waited_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "HEADER_S", 0.05)
    async with proxy_to(9, proxy_protocol_from=HERE) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"PROXY TCP4 ")
        await ended(reader)
        writer.close()
    assert "no PROXY protocol header within" in caplog.text


@on_both_loops
async def test_strangers_cannot_say_who_they_are(caplog: pytest.LogCaptureFixture) -> None:
    """From outside `proxy_protocol_from` a header is just a client that speaks no IMAP."""
    async with proxy_to(9, proxy_protocol_from=ELSEWHERE) as proxy:
        proxy.has_seen("IMAP4REV1")
        reader, writer = await proxy.connect()
        assert (await reader.readline()).startswith(b"* OK")
        writer.write(HEADERS["v1"][0])
        assert await reader.read() == b""
        writer.close()
    assert "PROXY" in caplog.text


@on_both_loops
async def test_the_limits_and_networks_are_the_clients_own(caplog: pytest.LogCaptureFixture) -> None:
    async with proxy_to(9, proxy_protocol_from=HERE, allow_from=ELSEWHERE) as proxy:
        proxy.has_seen("IMAP4REV1")
        reader, writer = await proxy.connect()
        writer.write(tcp4("192.0.2.1"))
        assert (await reader.readline()).startswith(b"* OK")
        assert dict(proxy.shared.doorman._by_address) == {"192.0.2.1": 1}
        refused, refused_writer = await proxy.connect()
        refused_writer.write(tcp4("198.51.100.7"))
        assert (await refused.read()).startswith(b"* BYE [LIMIT] your address may not use this port")
        refused_writer.close()
        writer.close()
    assert "IMAP from 198.51.100.7 at [TEST]: turned away" in caplog.text


@on_both_loops
async def test_behind_a_reverse_proxy_nobody_counts_as_local(authority: Authority) -> None:
    async with proxy_before(accepting, authority, proxy_protocol_from=HERE) as proxy:
        await log_in(proxy, HEADERS["v2 LOCAL"][0] + LOGIN)
        assert [visit.may_set_first_password for visit in proxy.tokens.visits] == [None]


@on_both_loops
async def test_the_time_for_the_header_ends_with_the_header(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the client is then waited for, in case that it begins with TLS."""
    monkeypatch.setattr(door, "HEADER_S", 0.2)
    monkeypatch.setattr(door, "HELLO_S", 0.05)
    certificate = files(authority.issue("localhost"), LocalStartTls.OFFERED)
    async with proxy_to(9, proxy_protocol_from=HERE, **certificate) as proxy:
        proxy.has_seen("IMAP4REV1")
        reader, writer = await proxy.connect()
        writer.write(tcp4("192.0.2.1"))
        assert (await reader.readline()).startswith(b"* OK")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.4)
        writer.close()
