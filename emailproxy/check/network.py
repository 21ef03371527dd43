"""The way to a host: its name, a connection, its certificate."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from aiohappyeyeballs import AddrInfoType, start_connection
from cryptography import x509

from emailproxy.check.finding import SOON_S, Finding, Grade, Link, span
from emailproxy.check.starttls import Refused, ask_for_tls
from emailproxy.config.hosts import host_and_port
from emailproxy.config.model import MailProtocol
from emailproxy.errors import ServiceError, one_line, system_words
from emailproxy.net.dial import CONNECT_TIMEOUT_S, NEXT_ADDRESS_S, Dialer
from emailproxy.net.tls import client_context, explain
from emailproxy.oauth.clock import rfc3339

MAX_SHOWN = 6  # addresses of a name
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

    @property
    def address(self) -> str:
        return host_and_port(self.host, self.port)


async def reach(dialer: Dialer, place: Place) -> AsyncIterator[Finding]:
    """DNS, TCP, TLS, as far as it goes."""
    dns, addresses = await look_up(dialer, place)
    yield dns
    if not addresses:
        return
    tcp, sock = await connect(place, addresses)
    yield tcp
    if sock is None:
        return
    with sock:
        if place.tls:
            sock.settimeout(CONNECT_TIMEOUT_S)
            yield await asyncio.to_thread(shake_hands, place, sock)


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


def shake_hands(place: Place, sock: socket.socket) -> Finding:
    """One verified TLS handshake. Blocks."""
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
        text = f"the certificate of {place.host} is not valid: {error.verify_message.rstrip('.')}"
        mend = f"{place.mend}, this machine's clock, and ca_file where a private CA is used"
        return Finding(Link.TLS, place.about, Grade.FAILED, text, mend)
    except TimeoutError:
        text = f"{place.address} accepts connections, and did not go on within {CONNECT_TIMEOUT_S:g} s"
        return Finding(Link.TLS, place.about, Grade.FAILED, text, f"check server_starttls: {STARTTLS_PORTS}")
    except OSError as error:  # ssl.SSLError is one
        return Finding(Link.TLS, place.about, Grade.FAILED, explain(error, place.host))
    assert der is not None
    return certificate_finding(place, x509.load_der_x509_certificate(der), version or "TLS")


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
