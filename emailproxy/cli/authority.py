"""A folder with a private authority and the server certificate that it signed, for local TLS.

``ca.pem`` is what clients trust, ``ca.key`` its key; ``server.pem`` and ``server.key`` are the server's. The authority
is made once, and a renewed certificate keeps its key: the one file that changes is replaced whole, so that a running
server never meets a certificate and a key that do not match.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from emailproxy import certificates
from emailproxy.certificates import PrivateKey, Validity
from emailproxy.errors import EmailProxyError, StateError, system_words
from emailproxy.store import files

AUTHORITY_DAYS = 3650  # clients are told to trust it by hand: that shall not be a yearly chore
PUBLIC = 0o644
ORGANIZATION = "emailproxy"  # in the authority's name: tells one made here from others


@dataclass(frozen=True, slots=True)
class Issued:
    """What is in the folder now."""

    folder: Path
    hosts: tuple[str, ...]
    ends: datetime
    authority_ends: datetime
    authority_is_new: bool
    authority_sha256: str
    """The fingerprint, as clients show it: octets in hexadecimal with colons between them."""

    @property
    def authority_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def certificate_file(self) -> Path:
        return self.folder / "server.pem"

    @property
    def key_file(self) -> Path:
        return self.folder / "server.key"


@dataclass(frozen=True, slots=True)
class _Pair:
    certificate: x509.Certificate
    key: PrivateKey


def issue(folder: Path, hosts: Sequence[str], days: int) -> Issued:
    """Makes the authority where there is none, and a certificate for these hosts, or for those of the last one.

    Raises:
        EmailProxyError: something in the folder was not made here, or is damaged, or the folder cannot be used;
            nothing was changed, unless the disk failed midway.
    """
    known = _authority(folder)
    last = _last(folder, known)
    hosts = tuple(hosts) or _hosts_of(last)
    if not hosts:
        raise EmailProxyError(
            f"there is no certificate in {folder} yet; name the hosts that clients connect to: "
            "--hosts=mail.lan,192.168.1.5"
        )
    if not folder.exists():
        files.make_folder(folder)
    pair = known or _new_authority()
    server_key = _key(folder / "server.key") or certificates.new_key()
    wanted = Validity.of(timedelta(days=days))
    validity = Validity(wanted.begins, min(wanted.ends, pair.certificate.not_valid_after_utc))
    issuer = pair.certificate.subject
    certificate = certificates.server(server_key.public_key(), hosts, validity, issuer=issuer, signer=pair.key)
    if known is None:
        _write(folder / "ca.key", certificates.key_pem(pair.key))
        _write(folder / "ca.pem", certificates.pem(pair.certificate), PUBLIC)
    if not (folder / "server.key").exists():
        _write(folder / "server.key", certificates.key_pem(server_key))
    _write(folder / "server.pem", certificates.pem(certificate, pair.certificate), PUBLIC)
    return Issued(
        folder,
        hosts,
        certificate.not_valid_after_utc,
        pair.certificate.not_valid_after_utc,
        known is None,
        pair.certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
    )


def _new_authority() -> _Pair:
    key = certificates.new_key()
    name = f"{ORGANIZATION} on {socket.gethostname()}, {datetime.now(UTC):%Y-%m-%d}"
    attributes = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
        *certificates.common_name(name),
    ]
    validity = Validity.of(timedelta(days=AUTHORITY_DAYS))
    return _Pair(certificates.authority(key, x509.Name(attributes), validity), key)


def _authority(folder: Path) -> _Pair | None:
    """The folder's authority; None where it has none."""
    place, key_place = folder / "ca.pem", folder / "ca.key"
    certificate, key = _certificate(place), _key(key_place)
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        there, missing = (key_place, place) if certificate is None else (place, key_place)
        raise _foreign(there, f"{missing.name} is not beside it")
    made_by = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if made_by != [ORGANIZATION]:
        raise _foreign(place, "its authority was not made by emailproxy")
    if certificate.public_key() != key.public_key():
        raise _foreign(place, f"{key_place.name} is not its key")
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise _foreign(
            place,
            f"its authority ended on {certificate.not_valid_after_utc:%Y-%m-%d}, and clients must trust a new one",
        )
    return _Pair(certificate, key)


def _last(folder: Path, authority: _Pair | None) -> x509.Certificate | None:
    """The server certificate of an earlier run; None where there is none."""
    place = folder / "server.pem"
    certificate = _certificate(place)
    if certificate is None:
        return None
    if authority is None:
        raise _foreign(place, "its authority is not beside it")
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        raise _foreign(place, "it is not of the authority in ca.pem") from None
    return certificate


def _hosts_of(certificate: x509.Certificate | None) -> tuple[str, ...]:
    if certificate is None:
        return ()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))


def _foreign(place: Path, why: str) -> EmailProxyError:
    return EmailProxyError(
        f"{place} is left as it is: {why}, and nothing was changed; move it away, or name another folder by --dir"
    )


def _certificate(place: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(place.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EmailProxyError(f"{place} cannot be read: {system_words(error)}; name a folder by --dir") from None
    except ValueError:
        raise _foreign(place, "it holds no certificate in PEM") from None


def _key(place: Path) -> PrivateKey | None:
    """The private key of a file that nobody else may read."""
    file = files.read(place) if place.parent.is_dir() else None
    if file is None:
        return None
    try:
        key = serialization.load_pem_private_key(file.data, password=None)
    except (ValueError, TypeError):  # TypeError: it wants a passphrase
        raise _foreign(place, "it holds no private key in PEM without a passphrase") from None
    if not isinstance(key, PrivateKey):
        raise _foreign(place, "its key was not made by emailproxy")
    return key


def _write(place: Path, data: bytes, mode: int = files.FILE_MODE) -> None:
    """Puts a file in place, whole and durable; a new one belongs to the folder's owner."""
    try:
        files.write(place, data, mode)
    except StateError as error:
        cause = error.__cause__ or error
        raise EmailProxyError(f"{place} cannot be written: {system_words(cause)}; choose a folder by --dir") from None
