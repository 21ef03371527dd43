"""Client certificates for tests, made once a process."""

from __future__ import annotations

import functools
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Pair:
    """A self-signed certificate and its key."""

    key: Key
    certificate: x509.Certificate

    def key_pem(self, passphrase: str | None = None, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
        return self.key.private_bytes(Encoding.PEM, form, encryption(passphrase))

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def pfx(self, passphrase: str | None = None, others: tuple[x509.Certificate, ...] = ()) -> bytes:
        return pkcs12.serialize_key_and_certificates(
            b"name", self.key, self.certificate, others, encryption(passphrase)
        )

    def thumbprint(self, digest: str) -> str:
        """As a JWT's header has it (RFC 7515 section 4.1.7)."""
        raw = self.certificate.fingerprint(getattr(hashes, digest)())
        return urlsafe_b64encode(raw).rstrip(b"=").decode()


def encryption(passphrase: str | None) -> KeySerializationEncryption:
    return NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.encode())


@functools.cache
def made(name: str = "client", *, kind: str = "rsa", days: int = 30) -> Pair:
    """`days`: until it ends; negative for one that has."""
    key: Key = (
        ec.generate_private_key(ec.SECP256R1())
        if kind == "ec"
        else rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
    )
    return Pair(key, builder.sign(key, hashes.SHA256()))


def written(folder: Path, pair: Pair) -> dict[str, Any]:
    """The pair as PEM files, and an account's settings that name them."""
    (folder / "client.pem").write_bytes(pair.certificate_pem)
    (folder / "client.key").write_bytes(pair.key_pem())
    return {"certificate": folder / "client.pem", "certificate_key": folder / "client.key"}
