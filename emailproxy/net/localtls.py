"""TLS towards the clients: a listening section's certificate, as its files hold it now."""

from __future__ import annotations

import logging
import os
import ssl
import stat
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from emailproxy.errors import ServiceError, one_line, system_words

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509

log = logging.getLogger("emailproxy.net")

LOOK_S = 1.0  # the files are looked at this often at most: a stat is cheap, but not for every connection of a flood
RENEWAL = timedelta(days=14)  # whoever renews does so earlier: that a certificate is this old means that nobody does
SHORT_LIVED = 3  # certificates of a few days are renewed in the last third of their lives

Stamp = tuple[tuple[int, int, int, int] | None, ...]


class LocalCertificate:
    """The certificate and private key of one section; a change of the files is found at the next connection."""

    def __init__(self, section: str, certificate: Path, key: Path | None) -> None:
        """Reads the files.

        Raises:
            ServiceError: they cannot be used; the text names the file and the mend.
        """
        self._section = section
        self._files = certificate, key
        self._stamp = self._look()
        self._looked_s = time.monotonic()
        self._context = load(section, certificate, key)

    @property
    def context(self) -> ssl.SSLContext:
        """What a handshake that begins now uses. Files that became unusable leave the one before in place."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                self._reload()
        return self._context

    def _reload(self) -> None:
        certificate, key = self._files
        try:
            self._context = load(self._section, certificate, key)
        except ServiceError as error:
            log.warning("%s; the certificate that was read before stays in use", error)
        else:
            log.info("[%s] the new certificate in %s is in use", self._section, certificate)

    def _look(self) -> Stamp:
        return tuple(_stamp(file) for file in self._files)


def _stamp(file: Path | None) -> tuple[int, int, int, int] | None:
    """What changes with a file's content."""
    try:
        status: os.stat_result | None = None if file is None else file.stat()
    except OSError:
        return None
    return None if status is None else (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def load(section: str, certificate: Path, key: Path | None) -> ssl.SSLContext:
    """A server's context, TLS 1.2 or better. Certificates that end soon are named in the log.

    Raises:
        ServiceError: a file cannot be read or used, or the key belongs to another certificate.
    """
    pem = _read(section, "local_certificate_path", certificate)
    keys = f"local_key_path {key}" if key is not None else f"local_certificate_path {certificate}"
    if key is not None:
        _read(section, "local_key_path", key)
    from cryptography import x509

    try:
        leaf = x509.load_pem_x509_certificates(pem)[0]
    except ValueError:
        raise ServiceError(
            f"[{section}] local_certificate_path {certificate} holds no certificate; give a file of PEM certificates, "
            "the server's own first"
        ) from None

    def no_passphrase() -> str:
        raise ServiceError(f"[{section}] the private key in {keys} is encrypted; give one without a passphrase")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate, key, password=no_passphrase)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise ServiceError(_explain(section, certificate, keys, error)) from None
    _warn_of_end(section, certificate, leaf)
    _warn_of_readers(section, key or certificate)
    return context


def _read(section: str, option: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ServiceError(
            f"[{section}] {option} {file} cannot be read ({system_words(error)}); check the path and its owner"
        ) from None


def _explain(section: str, certificate: Path, keys: str, error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return f"[{section}] {keys} holds the key of another certificate than {certificate}; give the two that belong"
    if reason in {"EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}:
        return f"[{section}] local_certificate_path {certificate} is too weak ({reason}); make a new one"
    return f"[{section}] {keys} holds no usable private key ({one_line(str(reason or error))}); give one in PEM"


def _warn_of_readers(section: str, key: Path) -> None:
    with suppress(OSError):  # it was just read
        if os.name == "posix" and key.stat().st_mode & stat.S_IROTH:
            log.warning("[%s] every user of this machine can read the private key in %s: run 'chmod 600 %s'",
                        section, key, key)  # fmt: skip


def _warn_of_end(section: str, certificate: Path, leaf: x509.Certificate) -> None:
    end = leaf.not_valid_after_utc
    left = end - datetime.now(UTC)
    soon = min(RENEWAL, (end - leaf.not_valid_before_utc) / SHORT_LIVED)
    if left <= soon:
        verb = "ended" if left <= timedelta() else "ends"
        log.warning(
            "[%s] the certificate in %s %s on %s: renew it; clients refuse it after that",
            section, certificate, verb, f"{end:%Y-%m-%d %H:%M} UTC",
        )  # fmt: skip
