"""What a client speaks that does not speak mail, told from its first octets, in words for the log."""

from __future__ import annotations

from emailproxy.wire.events import LocalTls

TLS_HANDSHAKE = b"\x16"  # RFC 8446 section 5.1: ContentType
PROXY_V1 = b"PROXY "
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"
SIGNATURES = (TLS_HANDSHAKE, PROXY_V1, PROXY_V2)
LONGEST_SIGNATURE = max(map(len, SIGNATURES))
CHOOSE_STARTTLS = "choose STARTTLS (not SSL/TLS) as the connection's security in the client"


def undecided(first: bytes) -> bool:
    """Whether so few octets have come that they may yet become a stranger's."""
    return any(len(first) < len(signature) and signature.startswith(first) for signature in SIGNATURES)


def recognise(first: bytes, local_tls: LocalTls) -> str | None:
    """The hint for the log, or None for a client that may well speak mail."""
    if first.startswith(TLS_HANDSHAKE):
        if local_tls in {LocalTls.OFFERED, LocalTls.REQUIRED}:
            return f"the client speaks TLS at once, but was greeted in plaintext: {CHOOSE_STARTTLS}"
        return "the client speaks TLS, but this port is plaintext: switch SSL/TLS and STARTTLS off in the client"
    if first.startswith((PROXY_V1, PROXY_V2)):
        return "the client sent a PROXY protocol header, which this port does not take: switch it off at the sender"
    return None
