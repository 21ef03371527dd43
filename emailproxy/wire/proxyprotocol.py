"""The PROXY protocol's header, as HAProxy's specification has it (doc/proxy-protocol.txt, versions 1 and 2).

A load balancer or reverse proxy sends it in front of the client's first octet: where the client really is.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from emailproxy.errors import ProtocolError
from emailproxy.wire.strangers import PROXY_V1, PROXY_V2

MAX_V1 = 107  # octets, CRLF included (section 2.1: the longest UNKNOWN line)
V2_FIXED = 16  # octets (section 2.2): signature, version and command, family and protocol, length
MAX_V2_REST = 4_096  # octets of addresses and TLVs: a certificate's names take some hundred, 65,535 are a flood

# Section 2.1: "PROXY" SP ("TCP4" / "TCP6") SP source SP destination SP port SP port CRLF, no zeros in front of numbers
PORT = rb"(0|[1-9][0-9]{0,4})"
V1_TCP = re.compile(rb"PROXY TCP([46]) ([0-9a-fA-F.:]+) ([0-9a-fA-F.:]+) " + PORT + b" " + PORT)
# The rest of such a line means nothing
V1_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: .*)?", re.DOTALL)

# Section 2.2: the 13th octet
LOCAL, PROXY = 0x20, 0x21
# Section 2.2: the 14th octet, a family and a protocol; TCP is the only one that carries mail
UNSPEC, TCP4, TCP6, UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
ADDRESSES = {TCP4: 4, TCP6: 16}  # octets of an address: two of them, and two ports
UNIX_ADDRESSES = 216  # octets


@dataclass(frozen=True, slots=True)
class Source:
    """Where the client is; both None where the sender speaks for itself or does not know."""

    address: str | None
    port: int | None
    rest: bytes
    """What came behind the header: the client's own octets."""


class Header:
    """One connection's header, octet by octet."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Source | None:
        """Where the client is; None while the header is incomplete. Not to be fed after that.

        Raises:
            ProtocolError: this is no such header.
        """
        self._data += data
        if self._data.startswith(PROXY_V1):
            return self._version_1()
        if self._data.startswith(PROXY_V2):
            return self._version_2()
        if PROXY_V1.startswith(self._data) or PROXY_V2.startswith(self._data):
            return None
        raise ProtocolError("no PROXY protocol header, which this port expects from this sender: switch it on there")

    def _version_1(self) -> Source | None:
        end = self._data.find(b"\r\n", 0, MAX_V1)
        if end < 0:
            if len(self._data) >= MAX_V1:
                raise ProtocolError(f"a PROXY protocol header of more than {MAX_V1} octets")
            return None
        line, rest = self._data[:end], self._data[end + 2 :]
        if V1_UNKNOWN.fullmatch(line):
            return Source(None, None, rest)
        match = V1_TCP.fullmatch(line)
        if match is None:
            raise ProtocolError("a PROXY protocol header that is not TCP4, TCP6 or UNKNOWN as version 1 spells them")
        version, source, destination, source_port, destination_port = match.groups()
        _address(destination.decode("ascii"), int(version))
        _port(destination_port)
        return Source(_address(source.decode("ascii"), int(version)), _port(source_port), rest)

    def _version_2(self) -> Source | None:
        if len(self._data) < V2_FIXED:
            return None
        command, family = self._data[12], self._data[13]
        length = int.from_bytes(self._data[14:V2_FIXED], "big")
        if command not in {LOCAL, PROXY}:
            raise ProtocolError(f"a PROXY protocol header of unknown version and command 0x{command:02x}")
        if length > MAX_V2_REST:
            raise ProtocolError(f"a PROXY protocol header of more than {MAX_V2_REST} octets")
        if len(self._data) < V2_FIXED + length:
            return None
        body, rest = self._data[V2_FIXED : V2_FIXED + length], self._data[V2_FIXED + length :]
        if command == LOCAL or family == UNSPEC:
            return Source(None, None, rest)
        return _binary_source(family, body, rest)


def _binary_source(family: int, body: bytes, rest: bytes) -> Source:
    """Section 2.2: source, destination, source port, destination port, then TLVs, which are skipped."""
    if family == UNIX_STREAM and len(body) >= UNIX_ADDRESSES:
        return Source(None, None, rest)
    size = ADDRESSES.get(family)
    if size is None or len(body) < 2 * size + 4:
        raise ProtocolError(f"a PROXY protocol header whose addresses (0x{family:02x}) are neither TCP's nor complete")
    port = int.from_bytes(body[2 * size : 2 * size + 2], "big")
    return Source(_plain(ipaddress.ip_address(body[:size])), port, rest)


def _address(text: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ProtocolError("a PROXY protocol header with an address that is none") from None
    if address.version != version:
        raise ProtocolError("a PROXY protocol header with an address of another family than it says")
    return _plain(address)


def _port(digits: bytes) -> int:
    port = int(digits)
    if port > 65_535:
        raise ProtocolError("a PROXY protocol header with a port beyond 65535")
    return port


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """IPv4 within IPv6 is IPv4: networks and limits must not tell them apart."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
