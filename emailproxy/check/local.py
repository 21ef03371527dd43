"""The local side: the certificates that mail programs are shown."""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from emailproxy.check.finding import SOON_S, Finding, Grade, Link, span
from emailproxy.check.network import names_in
from emailproxy.config.model import Server
from emailproxy.errors import ServiceError
from emailproxy.net.localtls import load
from emailproxy.oauth.clock import rfc3339

LOOPBACK_NAME = "localhost"
RENEW = "renew it ('emailproxy certificate', where that made it); it counts without a restart"
OF_ANOTHER_HOST = frozenset({62, 64})  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH
FLIGHTS = 4  # of a TLS handshake, from both sides, retries included (RFC 8446 section 2)


def local_certificates(servers: Iterable[Server]) -> Iterator[Finding]:
    for server in servers:
        if server.local_certificate is not None:
            yield local_certificate(server, server.local_certificate)


def local_certificate(server: Server, path: Path) -> Finding:
    """Whether it can be used, until when, and for which hosts."""
    about = f"local_certificate_path of {server.section}"
    try:
        context = load(server.section, path, server.local_key)
        leaf = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (ServiceError, OSError, ValueError) as error:
        return Finding(Link.CONFIGURATION, about, Grade.FAILED, str(error))
    ends_s, names = leaf.not_valid_after_utc.timestamp(), names_in(leaf)
    left_s = ends_s - time.time()
    facts = {"expires": rfc3339(ends_s), "names": names}
    if left_s <= 0:
        text = f"the certificate ended {span(left_s)} ago: mail programs refuse it"
        return Finding(Link.CONFIGURATION, about, Grade.FAILED, text, RENEW, facts)
    text = (
        f"the certificate is for {', '.join(names) or 'no host'}, and good for {span(left_s)}, until {facts['expires']}"
    )
    host = host_of(server)
    if host is not None and not is_for(context, leaf, host):
        mend = f"have programs connect to a name that it is for, or get one that is for {host}, too"
        return Finding(Link.CONFIGURATION, about, Grade.WARNING, f"{text}; it is not for {host}", mend, facts)
    soon = left_s < SOON_S
    return Finding(Link.CONFIGURATION, about, Grade.WARNING if soon else Grade.OK, text, RENEW if soon else "", facts)


def host_of(server: Server) -> str | None:
    """What programs are most likely told to connect to; None where that cannot be known: the port is on all
    addresses."""
    if server.local_address is None:
        return LOOPBACK_NAME
    try:
        address = ipaddress.ip_address(server.local_address)
    except ValueError:
        return server.local_address
    return None if address.is_unspecified else server.local_address


def is_for(server: ssl.SSLContext, leaf: x509.Certificate, host: str) -> bool:
    """Whether a client that trusts it takes it for this host, as OpenSSL sees it: both sides shake hands, in memory."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=leaf.public_bytes(Encoding.PEM).decode("ascii"))
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # its authority is not asked for
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (client.wrap_bio(back, there, server_hostname=host), server.wrap_bio(there, back, server_side=True))
    try:
        for _ in range(FLIGHTS):
            for side in sides:
                with suppress(ssl.SSLWantReadError):
                    side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return error.verify_code not in OF_ANOTHER_HOST
    except ssl.SSLError:  # what else there may be is not about names
        return True
    return True
