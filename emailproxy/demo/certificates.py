"""A private certificate authority in a folder, for the demo and the tests: nothing here is trusted by anything else."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from emailproxy import certificates
from emailproxy.certificates import CLOCK_SKEW, PrivateKey, Validity

LIFETIME = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server's certificate and private key, as PEM files."""

    certificate_file: Path
    key_file: Path

    def server_context(self) -> ssl.SSLContext:
        """What a TLS server with this certificate uses."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate_file, self.key_file)
        return context


class Authority:
    """A certificate authority whose files live in one folder."""

    def __init__(self, folder: Path, name: str, key: PrivateKey) -> None:
        self._folder = folder
        self._name = certificates.common_name(name)
        self._key = key
        self._issued = 0

    @classmethod
    def create(cls, folder: Path, name: str = "emailproxy private authority") -> Authority:
        """A new authority; its certificate is `certificate_file`, its private key is never written."""
        authority = cls(folder, name, certificates.new_key())
        certificate = certificates.authority(authority._key, authority._name, Validity.of(LIFETIME))
        _write(authority.certificate_file, certificates.pem(certificate))
        return authority

    @property
    def certificate_file(self) -> Path:
        """The authority's own certificate in PEM: what a client trusts, a configuration's ``ca_file``."""
        return self._folder / "ca.pem"

    def client_context(self) -> ssl.SSLContext:
        """A TLS client's context that trusts this authority and no other."""
        return ssl.create_default_context(cafile=str(self.certificate_file))

    def issue(self, *names: str, expired: bool = False, self_signed: bool = False) -> Certificate:
        """A server certificate for these host names and IP addresses."""
        key = certificates.new_key()
        now = datetime.now(UTC)
        validity = Validity(now - LIFETIME - CLOCK_SKEW, now - CLOCK_SKEW) if expired else Validity.of(LIFETIME)
        issuer, signer = (certificates.common_name(names[0]), key) if self_signed else (self._name, self._key)
        certificate = certificates.server(key.public_key(), names, validity, issuer=issuer, signer=signer)
        self._issued += 1
        issued = Certificate(self._folder / f"server-{self._issued}.pem", self._folder / f"server-{self._issued}.key")
        _write(issued.certificate_file, certificates.pem(certificate))
        _write(issued.key_file, certificates.key_pem(key))
        return issued


def _write(path: Path, content: bytes) -> None:
    """Owner-only from the first octet; never over an existing file."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
