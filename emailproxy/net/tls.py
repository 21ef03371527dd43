"""TLS contexts for the way upstream: certificates and host names are always verified."""

from __future__ import annotations

import os
import ssl
import time
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from emailproxy.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MAX_CONTEXTS = 64  # a file's certificates are a few KiB, the system's half a MiB
MAX_SESSION_S = 3600.0  # then the certificate is looked at again; servers' tickets are good for hours or days
MAX_ENDPOINTS = 1024  # they are the configuration's, so there are few
TOO_OLD = frozenset({"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW"})
Files = tuple[tuple[int, int, int] | None, ...]
"""Each one's inode, time of change in ns, and octets; None where it is not there."""
NO_TLS = "{} does not speak TLS on this port: check server_port and server_starttls"


class Trusted(NamedTuple):
    """What certificates are verified against, and the state of the files that it was read from."""

    context: ssl.SSLContext
    files: Files


_trusted: dict[Path | None, Trusted] = {}


def client_context(ca_file: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or better, verified against `ca_file`, or the system's trust store where there is none.

    The same one each time, whatever becomes of the file, until `trust` is told of another.

    Raises:
        ServiceError: the file holds no certificates.
    """
    found = _trusted.get(ca_file)
    if found is None:
        if len(_trusted) >= MAX_CONTEXTS:
            _trusted.clear()
        found = _trusted[ca_file] = _read(ca_file)
    return found.context


def changed(ca_files: Iterable[Path | None]) -> dict[Path | None, Trusted]:
    """Which of these files are others by now than those in use, and what they hold. Blocks.

    Raises:
        ServiceError: one holds no certificates any more.
    """
    return {
        ca_file: _read(ca_file)
        for ca_file in ca_files
        if (found := _trusted.get(ca_file)) is not None and found.files != _files(ca_file)
    }


def trust(renewed: Mapping[Path | None, Trusted]) -> None:
    """What new connections are verified against from now on; none resumes what was verified before."""
    _trusted.update(renewed)
    if renewed:
        resumption.cache_clear()


def _read(ca_file: Path | None) -> Trusted:
    files = _files(ca_file)  # first: a change meanwhile is seen the next time
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ServiceError(f"ca_file {ca_file} cannot be used: {error}; give a file of PEM certificates") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return Trusted(context, files)


def _files(ca_file: Path | None) -> Files:
    system = ssl.get_default_verify_paths()
    return tuple(map(_state, (system.cafile, system.capath) if ca_file is None else (ca_file,)))


def _state(path: str | Path | None) -> tuple[int, int, int] | None:
    with suppress(OSError):
        if path is not None:
            found = os.stat(path)
            return found.st_ino, found.st_mtime_ns, found.st_size
    return None


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
