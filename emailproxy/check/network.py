"""The way to a host: its name, a connection, its certificate."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aiohappyeyeballs import AddrInfoType, start_connection
from cryptography import x509

from emailproxy.check.finding import SOON_S, Finding, Grade, Link, span
from emailproxy.check.starttls import Refused, ask_for_tls
from emailproxy.config.hosts import host_and_port
from emailproxy.config.model import MailProtocol
from emailproxy.config.proxies import Proxy
from emailproxy.errors import LoginRefused, ServiceError, one_line, system_words
from emailproxy.net.dial import CONNECT_TIMEOUT_S, NEXT_ADDRESS_S, Dialer
from emailproxy.net.tls import client_context, explain
from emailproxy.oauth.clock import rfc3339

MAX_SHOWN = 6  # addresses of a name
T = TypeVar("T")
STARTTLS_PORTS = "True for ports 143, 110 and 587, False for 993, 995 and 465"


@dataclass(frozen=True, slots=True)
class Place:
    """A host to reach, and how."""

    about: str
    host: str
    port: int
    tls: bool = True
    starttls: MailProtocol | None = None
    """The protocol to ask for TLS in, where the connection begins in plaintext."""
    ca_file: Path | None = None
    mend: str = "check server_address and server_port"
    proxy: Proxy | None = None
    """What it is reached through."""

    @property
    def address(self) -> str:
        return host_and_port(self.host, self.port)


async def reach(dialer: Dialer, place: Place) -> AsyncIterator[Finding]:
    """DNS, TCP, TLS, as far as it goes."""
    addresses: list[AddrInfoType] = []
    if place.proxy is not None and place.proxy.looks_names_up:
        text = f"left to the proxy {place.proxy} ({place.proxy.source})"
        yield Finding(Link.DNS, place.about, Grade.SKIPPED, text, facts={"proxy": str(place.proxy)})
    else:
        dns, addresses = await look_up(dialer, place)
        yield dns
        if not addresses:
            return
    tcp, sock = await (connect(place, addresses) if place.proxy is None else tunnel(dialer, place))
    yield tcp
    if sock is None:
        return
    if not place.tls:
        sock.close()
        return
    tls = await in_thread(shake_hands, place, sock)
    yield tls if isinstance(tls, Finding) else await untrusted(dialer, place, tls)


async def in_thread(work: Callable[[Place, socket.socket], T], place: Place, sock: socket.socket) -> T:
    with sock:
        sock.settimeout(CONNECT_TIMEOUT_S)
        return await asyncio.to_thread(work, place, sock)


async def look_up(dialer: Dialer, place: Place) -> tuple[Finding, list[AddrInfoType]]:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            addresses = await dialer.resolve(place.host, place.port)
    except TimeoutError:
        text = f"the look-up of {place.host} took more than {CONNECT_TIMEOUT_S:g} s"
        return Finding(Link.DNS, place.about, Grade.FAILED, text, "check this machine's DNS servers"), []
    except socket.gaierror as error:
        text = f"the name {place.host} cannot be looked up ({error.strerror})"
        mend = f"{place.mend.partition(' and ')[0]}, and this machine's DNS servers"
        return Finding(Link.DNS, place.about, Grade.FAILED, text, mend), []
    found = list(dict.fromkeys(str(address[4][0]) for address in addresses))
    text = f"{place.host} is {', '.join(found[:MAX_SHOWN]) if found != [place.host] else 'an address'}"
    return Finding(Link.DNS, place.about, Grade.OK, text, facts={"addresses": found}), addresses


async def connect(place: Place, addresses: list[AddrInfoType]) -> tuple[Finding, socket.socket | None]:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            sock = await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_S)
    except TimeoutError:
        text = f"{place.address} does not answer within {CONNECT_TIMEOUT_S:g} s"
        mend = f"{place.mend}, and whether a firewall lets this machine reach that port"
        return Finding(Link.TCP, place.about, Grade.FAILED, text, mend), None
    except OSError as error:
        text = f"{place.address} cannot be reached ({system_words(error)})"
        return Finding(Link.TCP, place.about, Grade.FAILED, text, place.mend), None
    peer = sock.getpeername()[0]
    text = f"{place.address} accepts connections, at {peer}"
    return Finding(Link.TCP, place.about, Grade.OK, text, facts={"address": peer}), sock


async def tunnel(dialer: Dialer, place: Place) -> tuple[Finding, socket.socket | None]:
    try:
        sock = await dialer.connect(place.host, place.port)
    except LoginRefused as error:
        return Finding(Link.TCP, place.about, Grade.FAILED, str(error)), None
    facts = {"proxy": str(place.proxy)}
    text = f"{place.address} accepts connections, through the proxy {place.proxy}"
    return Finding(Link.TCP, place.about, Grade.OK, text, facts=facts), sock


def shake_hands(place: Place, sock: socket.socket) -> Finding | ssl.SSLCertVerificationError:
    """One verified TLS handshake, or why the certificate is not valid. Blocks."""
    try:
        context = client_context(place.ca_file)
        if place.starttls is not None:
            ask_for_tls(sock, place.starttls)
        with context.wrap_socket(sock, server_hostname=place.host) as secured:
            der, version = secured.getpeercert(binary_form=True), secured.version()
    except ServiceError as error:
        return Finding(Link.TLS, place.about, Grade.FAILED, str(error))
    except Refused as error:
        return Finding(Link.TLS, place.about, Grade.FAILED, str(error), "check server_starttls and server_port")
    except ssl.SSLCertVerificationError as error:
        return error
    except TimeoutError:
        text = f"{place.address} accepts connections, and did not go on within {CONNECT_TIMEOUT_S:g} s"
        return Finding(Link.TLS, place.about, Grade.FAILED, text, f"check server_starttls: {STARTTLS_PORTS}")
    except OSError as error:  # ssl.SSLError is one
        return Finding(Link.TLS, place.about, Grade.FAILED, explain(error, place.host))
    assert der is not None
    return certificate_finding(place, x509.load_der_x509_certificate(der), version or "TLS")


async def untrusted(dialer: Dialer, place: Place, error: ssl.SSLCertVerificationError) -> Finding:
    """A certificate that is not valid, with what it says of itself: another connection asks for it."""
    found: list[x509.Certificate] = []
    with suppress(LoginRefused):
        found = await in_thread(presented, place, await dialer.connect(place.host, place.port))
    text = f"the certificate of {place.host} is not valid: {error.verify_message.rstrip('.')}"
    facts: dict[str, Any] = {}
    if found:
        names, issuer, ends = names_in(found[0]), issuer_of(found[-1]), found[0].not_valid_after_utc.timestamp()
        text += f"; it is for {', '.join(names[:MAX_SHOWN]) or 'nobody'}, by {issuer}, until {rfc3339(ends)}"
        facts = {"names": names, "issuer": issuer, "expires": rfc3339(ends)}
    mend = f"{place.mend}, this machine's clock, and ca_file where a private CA is used"
    return Finding(Link.TLS, place.about, Grade.FAILED, text, mend, facts)


def presented(place: Place, sock: socket.socket) -> list[x509.Certificate]:
    """The certificates that the server shows, its own first; only that where Python knows no more. Nobody is trusted,
    and nothing is sent. Blocks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with suppress(OSError, Refused, ValueError):  # ValueError: what it shows is no certificate
        if place.starttls is not None:
            ask_for_tls(sock, place.starttls)
        with context.wrap_socket(sock, server_hostname=place.host) as secured:
            own = secured.getpeercert(binary_form=True)
            chain = getattr(secured, "get_unverified_chain", list)() or [own]  # since Python 3.13
            return [x509.load_der_x509_certificate(der) for der in chain if der]
    return []


def names_in(certificate: x509.Certificate) -> list[str]:
    """The host names and addresses that it is for (RFC 5280 section 4.2.1.6)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return []
    found = names.get_values_for_type(x509.DNSName) + [
        str(address) for address in names.get_values_for_type(x509.IPAddress)
    ]
    return [one_line(name) for name in found]


def certificate_finding(place: Place, certificate: x509.Certificate, version: str) -> Finding:
    ends_s = certificate.not_valid_after_utc.timestamp()
    issuer = issuer_of(certificate)
    left_s = ends_s - time.time()
    text = f"{version}; the certificate is {issuer}'s and good for {span(left_s)}"
    facts = {"version": version, "issuer": issuer, "expires": rfc3339(ends_s)}
    if left_s >= SOON_S:
        return Finding(Link.TLS, place.about, Grade.OK, text, facts=facts)
    mend = f"have whoever runs {place.host} renew it before {facts['expires']}"
    return Finding(Link.TLS, place.about, Grade.WARNING, text, mend, facts)


def issuer_of(certificate: x509.Certificate) -> str:
    """The CA's organisation and name, in one line."""
    names = (x509.NameOID.ORGANIZATION_NAME, x509.NameOID.COMMON_NAME)
    found = [str(part.value) for name in names for part in certificate.issuer.get_attributes_for_oid(name)]
    return one_line(" ".join(dict.fromkeys(found))) or "a nameless CA"
