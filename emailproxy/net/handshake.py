"""TLS handshakes over connections that stand, on both sides of the proxy."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from emailproxy.errors import ServerUnavailable, one_line
from emailproxy.net.tls import NO_TLS, explain

if TYPE_CHECKING:
    from emailproxy.net.pipes import ClientPipe, ServerPipe

HANDSHAKE_TIMEOUT_S = 10.0
SHUTDOWN_S = 600.0  # `Wire.finish` watches what drains: a slow peer that takes what is left may take its time
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


async def secure_server(pipe: ServerPipe, context: ssl.SSLContext, host: str) -> None:
    """TLS towards a mail server, over a plain connection whose transport `Wire` keeps: uvloop drops what a paused TLS
    reader has buffered when the peer closes, unless the raw transport is paused with it.

    Raises:
        ServerUnavailable: the handshake fails, or the certificate is not this host's.
    """
    wire = pipe.wire
    assert wire is not None
    pipe.in_handshake = True
    told = NO_TLS.format(host)
    try:
        tls = await asyncio.get_running_loop().start_tls(
            wire.transport,
            pipe,
            context,
            server_hostname=host,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            ssl_shutdown_timeout=SHUTDOWN_S,
        )
    except OSError as error:
        pipe.detach()
        wire.transport.abort()
        raise ServerUnavailable(told if pipe.spoke_plaintext else explain(error, host)) from None
    if tls is None or pipe.lost:
        closed = f"{host} closed the connection during the TLS handshake"
        raise ServerUnavailable(told if pipe.spoke_plaintext else closed)
    pipe.in_handshake = False
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
        tls = await _accept(wire.transport, pipe, context, early)
    except OSError as error:
        wire.transport.abort()
        pipe.lost = True
        raise _why(error) from None
    except asyncio.CancelledError:
        wire.transport.abort()
        raise
    if tls is None or pipe.lost:
        pipe.lost = True
        raise ClientLeft(CLIENT_LEFT)
    pipe.in_handshake = False
    wire.wrap(tls)


async def _accept(
    transport: asyncio.Transport, pipe: ClientPipe, context: ssl.SSLContext, early: Callable[[], bytes]
) -> asyncio.Transport | None:
    shaking = asyncio.ensure_future(
        asyncio.get_running_loop().start_tls(
            transport,
            pipe,
            context,
            server_side=True,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            ssl_shutdown_timeout=SHUTDOWN_S,
        )
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
