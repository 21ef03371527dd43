"""The PROXY protocol's header: every form of it, in every split, and everything that is none."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from emailproxy.errors import ProtocolError
from emailproxy.wire.proxyprotocol import MAX_V2_REST, Header, Source
from emailproxy.wire.strangers import PROXY_V2
from tests.wire.driver import CHUNKS

BEHIND = b"a LOGIN u p\r\n\0\xff"


def read(data: bytes, chunk: int) -> Source | None:
    """The source, once it is known; what comes after that is the session's."""
    header = Header()
    for start in range(0, len(data), chunk):
        source = header.feed(data[start : start + chunk])
        if source is not None:
            return Source(source.address, source.port, source.rest + data[start + chunk :])
    return None


def v2(body: bytes, *, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    return PROXY_V2 + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


def tcp(source: str, destination: str, port: int = 56324) -> bytes:
    return (
        ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed + struct.pack("!HH", port, 993)
    )


TLVS = b"\x01\x00\x04imap" + b"\x20\x00\x05\x01\x00\x00\x00\x00" + b"\x04\x00\x00"
UNIX = b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")
FOUR, SIX = tcp("192.0.2.1", "192.0.2.2"), tcp("2001:db8::1", "2001:db8::2", 1)
LONGEST = b"PROXY UNKNOWN ffff:" + b"f" * (107 - 21) + b"\r\n"
HEADERS = [
    pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 143\r\n", "192.0.2.1", 56324, id="1, IPv4"),
    pytest.param(b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255", 65535, id="1, most"),
    pytest.param(b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0", 0, id="1, least"),
    pytest.param(b"PROXY TCP6 2001:DB8::1 ::1 1 2\r\n", "2001:db8::1", 1, id="1, IPv6"),
    pytest.param(b"PROXY TCP6 " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n",
                 ":".join(["ffff"] * 8), 65535, id="1, IPv6 in full"),
    pytest.param(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "192.0.2.1", 1, id="1, IPv4 within IPv6"),
    pytest.param(b"PROXY UNKNOWN\r\n", None, None, id="1, unknown"),
    pytest.param(b"PROXY UNKNOWN \xff\r\xfe \0\n x\r\n", None, None, id="1, unknown, and whatever follows"),
    pytest.param(LONGEST, None, None, id="1, 107 octets"),
    pytest.param(v2(FOUR), "192.0.2.1", 56324, id="2, IPv4"),
    pytest.param(v2(SIX, family=0x21), "2001:db8::1", 1, id="2, IPv6"),
    pytest.param(v2(tcp("::ffff:192.0.2.1", "::1"), family=0x21), "192.0.2.1", 56324, id="2, IPv4 within IPv6"),
    pytest.param(v2(FOUR + TLVS), "192.0.2.1", 56324, id="2, IPv4 and more"),
    pytest.param(v2(FOUR + b"\xff" * 7), "192.0.2.1", 56324, id="2, IPv4 and what is nothing"),
    pytest.param(v2(FOUR.ljust(MAX_V2_REST, b"\0")), "192.0.2.1", 56324, id="2, the most that we take"),
    pytest.param(v2(UNIX, family=0x31), None, None, id="2, a Unix socket"),
    pytest.param(v2(b"", family=0x00), None, None, id="2, unspecified"),
    pytest.param(v2(TLVS, family=0x00), None, None, id="2, unspecified and more"),
    pytest.param(v2(b"", command=0x20, family=0x00), None, None, id="2, the sender itself"),
    pytest.param(v2(FOUR, command=0x20), None, None, id="2, the sender itself, addresses to be ignored"),
    pytest.param(v2(b"xyz", command=0x20, family=0xFF), None, None, id="2, the sender itself, whatever it says"),
]  # fmt: skip


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("header", "address", "port"), HEADERS)
def test_every_header_is_understood(header: bytes, address: str | None, port: int | None, chunk: int) -> None:
    assert read(header + BEHIND, chunk) == Source(address, port, BEHIND)
    assert read(header, chunk) == Source(address, port, b"")
    assert read(header[:-1], chunk) is None


PLAIN = "no PROXY protocol header, which this port expects"
TLS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
NONE = [
    pytest.param(b"a LOGIN u p\r\n", PLAIN, id="mail"),
    pytest.param(b"PROXIMA LOGIN u p\r\n", PLAIN, id="almost version 1"),
    pytest.param(b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n", PLAIN, id="1, in lower case"),
    pytest.param(b"\r\n\r\n\0\r\nQUIZ\n", PLAIN, id="almost version 2"),
    pytest.param(TLS, PLAIN, id="TLS"),
    pytest.param(b"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", "not TCP4, TCP6 or UNKNOWN", id="1, another family"),
    pytest.param(b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", "not TCP4, TCP6 or UNKNOWN", id="1, UDP"),
    pytest.param(b"PROXY UNKNOWNS\r\n", "not TCP4, TCP6 or UNKNOWN", id="1, another word"),
    pytest.param(b"PROXY \r\n", "not TCP4, TCP6 or UNKNOWN", id="1, nothing"),
    pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "not TCP4, TCP6 or UNKNOWN", id="1, a port too few"),
    pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", "not TCP4, TCP6 or UNKNOWN", id="1, a port too many"),
    pytest.param(b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", "not TCP4, TCP6 or UNKNOWN", id="1, two spaces"),
    pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", "not TCP4, TCP6 or UNKNOWN", id="1, a zero in front"),
    pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", "not TCP4, TCP6 or UNKNOWN", id="1, a sign"),
    pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 \xb2 2\r\n", "not TCP4, TCP6 or UNKNOWN", id="1, not ASCII"),
    pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\nx\r\n", "not TCP4, TCP6 or UNKNOWN", id="1, a bare line feed"),
    pytest.param(b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "not TCP4, TCP6 or UNKNOWN", id="1, a zone"),
    pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", "a port beyond 65535", id="1, a port too high"),
    pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 99999\r\n", "a port beyond 65535", id="1, the other port too high"),
    pytest.param(b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n", "an address that is none", id="1, no address"),
    pytest.param(b"PROXY TCP4 192.0.02.1 192.0.2.2 1 2\r\n", "an address that is none", id="1, an octal address"),
    pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2 1 2\r\n", "an address that is none", id="1, no destination"),
    pytest.param(b"PROXY TCP6 :::1 ::1 1 2\r\n", "an address that is none", id="1, no IPv6 address"),
    pytest.param(b"PROXY TCP4 ::1 ::1 1 2\r\n", "another family", id="1, IPv6 for IPv4"),
    pytest.param(b"PROXY TCP6 ::1 192.0.2.1 1 2\r\n", "another family", id="1, IPv4 for IPv6"),
    pytest.param(b"PROXY UNKNOWN".ljust(107), "more than 107 octets", id="1, without an end"),
    pytest.param(LONGEST.replace(b"\r", b"f\r"), "more than 107 octets", id="1, an octet too many"),
    pytest.param(v2(FOUR, command=0x11), "unknown version and command 0x11", id="2, another version"),
    pytest.param(v2(FOUR, command=0x22), "unknown version and command 0x22", id="2, another command"),
    pytest.param(v2(b"", length=MAX_V2_REST + 1), "more than 4096 octets", id="2, too long, as soon as it says so"),
    pytest.param(v2(FOUR, family=0x12), "(0x12) are neither TCP's nor complete", id="2, UDP"),
    pytest.param(v2(UNIX, family=0x32), "(0x32) are neither TCP's nor complete", id="2, Unix datagrams"),
    pytest.param(v2(FOUR, family=0x41), "(0x41) are neither TCP's nor complete", id="2, another family"),
    pytest.param(v2(FOUR, family=0x01), "(0x01) are neither TCP's nor complete", id="2, no family, but TCP"),
    pytest.param(v2(FOUR[:-1]), "(0x11) are neither TCP's nor complete", id="2, IPv4, an octet short"),
    pytest.param(v2(SIX[:-1], family=0x21), "(0x21) are neither TCP's nor complete", id="2, IPv6, an octet short"),
    pytest.param(v2(UNIX[:-1], family=0x31), "(0x31) are neither TCP's nor complete", id="2, Unix, an octet short"),
]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("octets", "words"), NONE)
def test_whatever_else_is_none(octets: bytes, words: str, chunk: int) -> None:
    with pytest.raises(ProtocolError) as raised:
        read(octets + BEHIND, chunk)
    assert words in str(raised.value)
    assert str(raised.value).isprintable()


def test_nothing_is_taken_before_it_can_be_judged() -> None:
    header = Header()
    for octets in (b"", b"P", b"ROXY", b" UNKNOWN"):
        assert header.feed(octets) is None
    assert header.feed(b"\r\nx") == Source(None, None, b"x")
