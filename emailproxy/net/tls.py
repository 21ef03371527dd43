"""TLS contexts for the way upstream: certificates and host names are always verified."""

from __future__ import annotations

import ssl
from functools import lru_cache
from typing import TYPE_CHECKING

from emailproxy.errors import ServiceError

if TYPE_CHECKING:
    from pathlib import Path

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
    if isinstance(error, TimeoutError):
        return f"the TLS handshake with {host} took too long"
    return f"the TLS handshake with {host} failed: {error}"
