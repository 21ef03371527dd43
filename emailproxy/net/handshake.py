"""TLS handshakes over connections that stand, on both sides of the proxy."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from emailproxy.errors import ServerUnavailable, one_line
from emailproxy.net import memory
from emailproxy.net.pipes import Vestibule
from emailproxy.net.tls import NO_TLS, explain, resumption
from emailproxy.net.tlstransport import start_tls

if TYPE_CHECKING:
    import socket

    from emailproxy.config.model import MailServer
    from emailproxy.net.pipes import ClientPipe, ServerPipe

HANDSHAKE_TIMEOUT_S = 10.0
PLAINTEXT = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"}
)
DISTRUST = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_EXPIRED", "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "TLSV1_ALERT_UNKNOWN_CA", "SSL/TLS_ALERT_BAD_CERTIFICATE", "SSL/TLS_ALERT_CERTIFICATE_EXPIRED",
        "SSL/TLS_ALERT_CERTIFICATE_UNKNOWN",
    }
)  # fmt: skip
TOO_OLD = frozenset({"UNSUPPORTED_PROTOCOL", "NO_SHARED_CIPHER", "VERSION_TOO_LOW", "NO_SUITABLE_SIGNATURE_ALGORITHM"})


CLIENT_LEFT = "the client closed the connection during the TLS handshake"


class HandshakeFailed(Exception):
    """A client's handshake did not come to its end; the text says why, for the log."""


class ClientLeft(HandshakeFailed):
    """It went away, as whoever only looks whether the port is open does."""


async def connect_server(pipe: ServerPipe, sock: socket.socket, server: MailServer, context: ssl.SSLContext) -> None:
    """A pipe to a mail server over this connection; TLS stands, unless it begins without.

    Raises:
        ServerUnavailable: the handshake fails, or the certificate is not this host's.
    """
    loop = asyncio.get_running_loop()
    if server.starttls:
        await loop.create_connection(lambda: pipe, sock=sock)
    else:
        await loop.create_connection(lambda: Vestibule(pipe), sock=sock)
        await secure_server(pipe, context, server.address, server.port)


async def secure_server(pipe: ServerPipe, context: ssl.SSLContext, host: str, port: int) -> None:
    """TLS towards a mail server, over a plain connection.

    Raises:
        ServerUnavailable: the handshake fails, or the certificate is not this host's.
    """
    wire = pipe.wire
    assert wire is not None
    pipe.in_handshake = True
    told, closed = NO_TLS.format(host), f"{host} closed the connection during the TLS handshake"
    if pipe.lost or wire.transport.is_closing():  # uvloop would begin all the same, and log that as a fault of ours
        raise ServerUnavailable(told if pipe.spoke_plaintext else closed)
    memory.require(memory.FOR_TLS)
    former = resumption(context, host, port)
    try:
        tls = await start_tls(
            wire.transport,
            pipe,
            context,
            server_hostname=host,
            session=former.session,
            handshake_timeout_s=HANDSHAKE_TIMEOUT_S,
        )
    except OSError as error:
        former.forget()
        pipe.detach()
        wire.transport.abort()
        raise ServerUnavailable(told if pipe.spoke_plaintext else explain(error, host)) from None
    if pipe.lost:
        raise ServerUnavailable(told if pipe.spoke_plaintext else closed)
    pipe.in_handshake = False
    pipe.keep_tls_session = lambda: former.keep(tls.get_extra_info("ssl_object"))
    wire.wrap(tls)


async def secure_client(pipe: ClientPipe, context: ssl.SSLContext, early: Callable[[], bytes] = bytes) -> None:
    """TLS towards a client, over a plain connection; `early` tells what came of its handshake before TLS had it.

    What the client says behind its handshake waits in the pipe, for `ClientPipe.catch_up`.

    Raises:
        HandshakeFailed: there is no TLS; the connection is cut.
    """
    wire = pipe.wire
    assert wire is not None
    pipe.in_handshake = True
    try:
        memory.require(memory.FOR_TLS)
        tls = await _accept(wire.transport, pipe, context, early)
    except MemoryError as error:
        wire.transport.abort()
        pipe.lost = True
        raise HandshakeFailed(f"there is no memory for its TLS: {error}") from None
    except OSError as error:
        wire.transport.abort()
        pipe.lost = True
        raise _why(error) from None
    except asyncio.CancelledError:
        wire.transport.abort()
        raise
    if pipe.lost:
        raise ClientLeft(CLIENT_LEFT)
    pipe.in_handshake = False
    wire.wrap(tls)


async def _accept(
    transport: asyncio.Transport, pipe: ClientPipe, context: ssl.SSLContext, early: Callable[[], bytes]
) -> asyncio.Transport:
    shaking = asyncio.ensure_future(
        start_tls(transport, pipe, context, server_side=True, handshake_timeout_s=HANDSHAKE_TIMEOUT_S)
    )
    try:
        await asyncio.sleep(0)
        if not shaking.done():  # TLS has the transport, but reads nothing yet: what we have comes first
            _hand_on(cast("asyncio.BufferedProtocol", transport.get_protocol()), early())
        return await shaking
    except BaseException:
        shaking.cancel()
        raise


def _hand_on(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    """What a transport does with what it read."""
    while data:
        buffer = memoryview(protocol.get_buffer(len(data)))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        protocol.buffer_updated(size)
        data = data[size:]


def _why(error: OSError) -> HandshakeFailed:
    """Why a client's handshake failed, and what to do."""
    reason = getattr(error, "reason", None) or ""
    if reason in PLAINTEXT:
        return HandshakeFailed(
            "the client speaks plaintext, but this port speaks TLS from the first octet; switch on SSL/TLS in it"
        )
    if reason in DISTRUST:
        return HandshakeFailed(
            "the client does not trust our certificate; make it trust the authority, or check the host name it uses"
        )
    if reason in TOO_OLD:
        return HandshakeFailed(f"the client is too old for TLS 1.2 ({reason})")
    if isinstance(error, ssl.SSLError):
        return HandshakeFailed(f"the TLS handshake failed: {one_line(str(reason or error))}")
    if isinstance(error, (TimeoutError, ConnectionAbortedError)):
        return HandshakeFailed(
            f"no TLS handshake within {HANDSHAKE_TIMEOUT_S:.0f} s; a client that waits for a plaintext greeting must "
            "be set to SSL/TLS"
        )
    return ClientLeft(CLIENT_LEFT)
