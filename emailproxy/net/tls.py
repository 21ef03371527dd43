"""TLS contexts for the way upstream: certificates and host names are always verified."""

from __future__ import annotations

import ssl
import time
from functools import lru_cache
from typing import TYPE_CHECKING

from emailproxy.errors import ServiceError

if TYPE_CHECKING:
    from pathlib import Path

MAX_SESSION_S = 3600.0  # then the certificate is looked at again; servers' tickets are good for hours or days
MAX_ENDPOINTS = 1024  # they are the configuration's, so there are few
TOO_OLD = frozenset({"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW"})
NO_TLS = "{} does not speak TLS on this port: check server_port and server_starttls"


@lru_cache(maxsize=64)
def client_context(ca_file: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or better, verified against `ca_file`, or the system's trust store where there is none.

    Raises:
        ServiceError: the file holds no certificates.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ServiceError(f"ca_file {ca_file} cannot be used: {error}; give a file of PEM certificates") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Resumption:
    """The TLS session to go on with at one mail server (RFC 8446 section 2.2): it saves a third of a handshake.

    A resumed session is not verified again: it proves that the server is the one that was. So it is this host's and
    port's alone, comes from a connection whose certificate was verified, and serves for an hour at most.
    """

    def __init__(self) -> None:
        self._session: ssl.SSLSession | None = None
        self._until_s = 0.0

    @property
    def session(self) -> ssl.SSLSession | None:
        return self._session if time.monotonic() < self._until_s else None

    def keep(self, connection: ssl.SSLObject) -> None:
        """The session of a connection of ours, for the next handshakes. To be called once the server has spoken: in TLS
        1.3 the ticket comes with that. One ticket serves as long as the server takes it: to get the next out of
        OpenSSL would cost half of what it saves."""
        if connection.session_reused:
            return
        session = connection.session
        if session is not None and session.has_ticket:
            self._session = session
            self._until_s = time.monotonic() + MAX_SESSION_S

    def forget(self) -> None:
        """The next handshake is a whole one."""
        self._session = None


@lru_cache(maxsize=MAX_ENDPOINTS)
def resumption(_verifying: ssl.SSLContext, _host: str, _port: int) -> Resumption:
    """What all connections to this mail server share; one for each context that verifies."""
    return Resumption()


def explain(error: Exception, host: str) -> str:
    """Why a handshake with `host` failed, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message.rstrip(".")
        return (
            f"the certificate of {host} is not valid: {reason}; nothing was sent to it. Check server_address, this "
            "machine's clock, and ca_file if the server uses a private CA"
        )
    if isinstance(error, ssl.SSLError) and error.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST"}:
        return NO_TLS.format(host)
    if isinstance(error, ssl.SSLError) and error.reason in TOO_OLD:
        return f"{host} speaks no TLS of version 1.2 or newer, and nothing was sent to it; it needs an update"
    if isinstance(error, TimeoutError):
        return f"the TLS handshake with {host} took too long"
    return f"the TLS handshake with {host} failed: {str(error) or 'it closed the connection'}"
