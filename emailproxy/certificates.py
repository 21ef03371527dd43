"""X.509 certificates of a private authority (RFC 5280): for local TLS, for the demo, and for the tests.

Keys are ECDSA P-256, which every TLS stack of the last ten years knows; an authority signs servers, and no authorities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLOCK_SKEW = timedelta(hours=1)
"""Certificates begin this much in the past: the clocks of two machines differ."""

MAX_COMMON_NAME = 64  # characters: RFC 5280 appendix A.1, ub-common-name

PrivateKey = ec.EllipticCurvePrivateKey
Extensions = list[tuple[x509.ExtensionType, bool]]


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate is good, both in UTC."""

    begins: datetime
    ends: datetime

    @classmethod
    def of(cls, lifetime: timedelta) -> Validity:
        """From now on."""
        now = datetime.now(UTC)
        return cls(now - CLOCK_SKEW, now + lifetime)


def new_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def authority(key: PrivateKey, name: x509.Name, validity: Validity) -> x509.Certificate:
    """The certificate of an authority, which says so itself."""
    extensions: Extensions = [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_key_usage(signs_certificates=True), True),
    ]
    return _signed(name, key.public_key(), extensions, validity, issuer=name, signer=key)


def server(
    key: ec.EllipticCurvePublicKey, hosts: Sequence[str], validity: Validity, *, issuer: x509.Name, signer: PrivateKey
) -> x509.Certificate:
    """A server's certificate for these host names and IP addresses (RFC 6125, RFC 5280 section 4.2.1.6)."""
    extensions: Extensions = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectAlternativeName([_general_name(host) for host in hosts]), False),
    ]
    return _signed(common_name(hosts[0]), key, extensions, validity, issuer=issuer, signer=signer)


def common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:MAX_COMMON_NAME])])


def pem(*chain: x509.Certificate) -> bytes:
    """A certificate in PEM (RFC 7468), those that lead to its authority behind it."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain)


def key_pem(key: PrivateKey) -> bytes:
    """A private key in PEM (PKCS #8), unencrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _signed(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    extensions: Extensions,
    validity: Validity,
    *,
    issuer: x509.Name,
    signer: PrivateKey,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.begins)
        .not_valid_after(validity.ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signer, hashes.SHA256())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


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
