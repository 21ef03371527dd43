"""A private certificate authority, for the demo and the tests: nothing here is trusted by anything else."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=7)
CLOCK_SKEW = timedelta(hours=1)
"""Certificates begin this much in the past: the clocks of two machines differ."""

Extensions = list[tuple[x509.ExtensionType, bool]]


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

    def __init__(self, folder: Path, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> None:
        self._folder = folder
        self._name = name
        self._key = key
        self._issued = 0

    @classmethod
    def create(cls, folder: Path, name: str = "emailproxy private authority") -> Authority:
        """A new authority; its certificate is `certificate_file`, its private key is never written."""
        key = ec.generate_private_key(ec.SECP256R1())
        authority = cls(folder, _name(name), key)
        now = datetime.now(UTC)
        extensions: Extensions = [
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (_key_usage(signs_certificates=True), True),
        ]
        certificate = authority._sign(authority._name, key, extensions, (now - CLOCK_SKEW, now + LIFETIME), signer=key)
        _write(authority.certificate_file, certificate.public_bytes(serialization.Encoding.PEM))
        return authority

    @property
    def certificate_file(self) -> Path:
        """The authority's own certificate in PEM: what a client trusts, a configuration's ``ca_file``."""
        return self._folder / "ca.pem"

    def client_context(self) -> ssl.SSLContext:
        """A TLS client's context that trusts this authority and no other."""
        return ssl.create_default_context(cafile=str(self.certificate_file))

    def issue(self, *names: str, expired: bool = False, self_signed: bool = False) -> Certificate:
        """A server certificate for these host names and IP addresses (RFC 6125, RFC 5280 section 4.2.1.6)."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        validity = (now - LIFETIME - CLOCK_SKEW, now - CLOCK_SKEW) if expired else (now - CLOCK_SKEW, now + LIFETIME)
        extensions: Extensions = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_key_usage(signs_certificates=False), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
            (x509.SubjectAlternativeName([_general_name(name) for name in names]), False),
        ]
        certificate = self._sign(_name(names[0]), key, extensions, validity, signer=key if self_signed else self._key)
        self._issued += 1
        issued = Certificate(self._folder / f"server-{self._issued}.pem", self._folder / f"server-{self._issued}.key")
        _write(issued.certificate_file, certificate.public_bytes(serialization.Encoding.PEM))
        _write(
            issued.key_file,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
        return issued

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        extensions: Extensions,
        validity: tuple[datetime, datetime],
        *,
        signer: ec.EllipticCurvePrivateKey,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if signer is key else self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(validity[0])
            .not_valid_after(validity[1])
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(signer, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, content: bytes) -> None:
    """Owner-only from the first octet; never over an existing file."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
