"""The certificate and key that a client authenticates with: PEM, or PFX (PKCS #12, RFC 7292)."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    pkcs12,
)

from emailproxy.config.model import Account
from emailproxy.errors import AccountUnusable
from emailproxy.oauth.rounds import MAX_ROUNDS, rounds_in, rounds_in_pem
from emailproxy.oauth.secrets import Secrets, content_of
from emailproxy.secret import Secret

# RFC 7468 section 10: a PKCS #8 key; section 13: one that is encrypted; and OpenSSL's older forms
PEM_KEY = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)
MAX_LOADED = 32  # certificates that are kept loaded; few have more than one
PEM_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
# RFC 7292 section 4: PFX ::= SEQUENCE { version INTEGER {v3(3)}, ...; in BER or DER, after at most 5 octets of header
PFX_START = re.compile(rb"\x30[\x00-\xff]{1,5}?\x02\x01\x03\x30")

log = logging.getLogger("emailproxy.oauth")


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate and its key, which match."""

    key: RSAPrivateKey = field(repr=False)
    chain_pem: str
    """The client's own certificate, and what else was with it."""
    sha256: bytes
    """The thumbprint: the digest of the client's certificate in DER."""
    sha1: bytes
    """The same as older providers want it."""
    not_after: datetime

    @property
    def x5t(self) -> str:
        """RFC 7515 section 4.1.7."""
        return base64url(self.sha1)

    @property
    def x5t_s256(self) -> str:
        """RFC 7515 section 4.1.8: the header ``x5t#S256``."""
        return base64url(self.sha256)


@dataclass(frozen=True, slots=True)
class Named:
    """A file of the configuration, for messages."""

    owner: str
    key: str
    path: object

    def __str__(self) -> str:
        return f"the {self.key} of {self.owner} ({self.path})"

    def unusable(self, what: str) -> AccountUnusable:
        return AccountUnusable(f"{self} {what}")


async def certificate_of(account: Account, secrets: Secrets) -> ClientCertificate:
    """The account's client certificate, as its files have it now. One that has expired is used, with a warning.

    Raises:
        AccountUnusable: a file is missing, is of another kind, does not open with its passphrase, or certificate and
            key do not belong together.
    """
    if account.certificate is None:
        raise AccountUnusable(f"{account.name} has no jwt_certificate_path; add it to [{account.section}]")
    file = Named(account.name, "jwt_certificate_path", account.certificate)
    key_file = file
    content = key_content = await content_of(account.certificate, f"the {file.key} of {file.owner}")
    if account.certificate_key not in (None, account.certificate) and not PFX_START.match(content):
        assert account.certificate_key is not None
        key_file = Named(account.name, "jwt_key_path", account.certificate_key)
        key_content = await content_of(account.certificate_key, f"the {key_file.key} of {key_file.owner}")
    passphrase = None
    if account.key_passphrase is not None:
        passphrase = await secrets.read(account.key_passphrase, owner=account.name, key="jwt_key_passphrase")
    loaded = await asyncio.to_thread(loaded_from, content, file, key_content, key_file, passphrase)
    if loaded.not_after <= datetime.now(UTC):
        log.warning(
            "%s expired on %s; have a new one issued", file, loaded.not_after.date(), extra={"account": account.name}
        )
    return loaded


@lru_cache(MAX_LOADED)
def loaded_from(
    content: bytes, file: Named, key_content: bytes, key_file: Named, passphrase: Secret | None
) -> ClientCertificate:
    """The pair that these contents are, loaded once: a key of 4,096 bits is verified for a third of a second, in which
    nothing else of the process runs."""
    if PFX_START.match(content):
        key, certificates = from_pfx(content, file, passphrase)
    elif PEM_CERTIFICATE in content:
        certificates = certificates_of(content, file)
        key = key_of(key_content, key_file, passphrase)
    else:
        raise file.unusable("is neither a PEM certificate nor a PFX file; give the client's certificate")
    if not isinstance(key, RSAPrivateKey):
        raise key_file.unusable("holds no RSA key; assertions are signed with RS256, have an RSA certificate issued")
    return matched(key, certificates, file, key_file)


def from_pfx(content: bytes, file: Named, passphrase: Secret | None) -> tuple[object, Sequence[x509.Certificate]]:
    refuse_endless(rounds_in(content), file)
    try:
        found, first, others = pkcs12.load_key_and_certificates(
            content, None if passphrase is None else octets(passphrase)
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise file.unusable(f"cannot be opened; {passphrase_mend(passphrase)}, if the file is not damaged") from None
    if found is None or first is None:
        raise file.unusable("holds no certificate with its key; export it again with its private key")
    return found, [first, *others]


def refuse_endless(rounds: int, file: Named) -> None:
    if rounds > MAX_ROUNDS:
        raise file.unusable(
            f"wants its passphrase hashed {rounds} times, which would take too long; export it again with fewer "
            f"iterations, {MAX_ROUNDS} at most"
        )


def certificates_of(content: bytes, file: Named) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise file.unusable("holds a certificate that cannot be read; it is damaged, fetch it again") from None


def key_of(content: bytes, file: Named, passphrase: Secret | None) -> object:
    """The private key of a PEM file, whatever else is in it."""
    pem = PEM_KEY.search(content)
    if pem is None:
        mend = "name the key's file in jwt_key_path" if file.key == "jwt_certificate_path" else "give the key in PEM"
        raise file.unusable(f"holds no PEM private key; {mend}")
    encrypted = b"ENCRYPTED" in pem.group()
    refuse_endless(rounds_in_pem(pem.group()), file)
    try:
        return load_pem_private_key(pem.group(), octets(passphrase) if encrypted and passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if encrypted:
            raise file.unusable(f"cannot be opened; {passphrase_mend(passphrase)}") from None
        raise file.unusable("holds a private key that cannot be read; it is damaged, or of a rare kind") from None


def matched(
    key: RSAPrivateKey, certificates: Iterable[x509.Certificate], file: Named, key_file: Named
) -> ClientCertificate:
    """The certificate that the key belongs to, before the rest of its chain."""
    ours = spki(key)
    chain = sorted(certificates, key=lambda certificate: spki(certificate) != ours)
    if not chain or spki(chain[0]) != ours:
        raise file.unusable(
            f"does not belong to the private key in {key_file.path}; give the two that were made together"
        )
    leaf = chain[0]
    return ClientCertificate(
        key,
        "".join(certificate.public_bytes(Encoding.PEM).decode("ascii") for certificate in chain),
        leaf.fingerprint(hashes.SHA256()),
        leaf.fingerprint(hashes.SHA1()),  # noqa: S303 - names a certificate, protects nothing
        leaf.not_valid_after_utc,
    )


def spki(of: RSAPrivateKey | x509.Certificate) -> bytes:
    """The SubjectPublicKeyInfo (RFC 5280 section 4.1); b"" where the key is of a kind that nobody can read."""
    try:
        return of.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        return b""


def passphrase_mend(passphrase: Secret | None) -> str:
    return "it needs its passphrase, add jwt_key_passphrase" if passphrase is None else "jwt_key_passphrase is wrong"


def octets(passphrase: Secret) -> bytes:
    return passphrase.reveal().encode("utf-8")


def base64url(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
