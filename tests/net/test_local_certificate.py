"""The certificate's files: read at the start, read again when they change, and never given up for worse ones."""

from __future__ import annotations

import logging
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from emailproxy.errors import ServiceError
from emailproxy.net import localtls
from emailproxy.net.localtls import LocalCertificate
from tests.net.loops import on_both_loops
from tests.net.stubs import proxy_to

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def certificate(key: Key, ends_in: timedelta, lives: timedelta = timedelta(days=90), name: str = "ours") -> bytes:
    end = datetime.now(UTC) + ends_in
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    signed = (
        builder.serial_number(x509.random_serial_number()).not_valid_before(end - lives).not_valid_after(end)
    ).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def private(key: Key, passphrase: bytes | None = None) -> bytes:
    sealing = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealing)


class Files:
    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "fullchain.pem"
        self.key = folder / "privkey.pem"

    def write(self, certificate: bytes, key: bytes) -> None:
        self.write_one(self.certificate, certificate)
        self.write_one(self.key, key)

    @staticmethod
    def write_one(file: Path, content: bytes) -> None:
        """As those who renew certificates do: another file under the same name."""
        new = file.with_suffix(".new")
        new.touch(0o600)
        new.write_bytes(content)
        os.replace(new, file)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def looked_at_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localtls, "LOOK_S", 0.0)


QUARTER = timedelta(days=90)


@pytest.mark.parametrize(
    ("left", "lives", "words"),
    [
        (timedelta(days=15), QUARTER, None),
        (timedelta(days=13), QUARTER, "ends on"),
        (timedelta(seconds=-1), QUARTER, "ended on"),
        (timedelta(days=5), timedelta(days=7), None),
        (timedelta(days=2), timedelta(days=7), "ends on"),
    ],
)
def test_an_end_that_is_near_is_told(
    files: Files, left: timedelta, lives: timedelta, words: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    files.write(certificate(key, left, lives), private(key))
    LocalCertificate("IMAP-1993", files.certificate, files.key)
    if words is None:
        assert not caplog.records
    else:
        end = datetime.now(UTC) + left
        assert f"[IMAP-1993] the certificate in {files.certificate} {words} {end:%Y-%m-%d}" in caplog.text
        assert "renew it" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="modes are Unix's")
@pytest.mark.parametrize(("mode", "told"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_key_that_everybody_can_read_is_told(
    files: Files, mode: int, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    files.write(CERTIFICATE, private(KEY))
    files.key.chmod(mode)
    LocalCertificate("IMAP-1993", files.certificate, files.key)
    assert (f"can read the private key in {files.key}: run 'chmod 600" in caplog.text) is told


def test_key_and_certificate_may_share_a_file(files: Files) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    files.certificate.write_bytes(certificate(key, QUARTER) + private(key))
    context = LocalCertificate("IMAP-1993", files.certificate, None).context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


KEY = ec.generate_private_key(ec.SECP256R1())
CERTIFICATE = certificate(KEY, QUARTER)
UNUSABLE = {
    "no certificate": (None, private(KEY), "local_certificate_path {certificate} cannot be read", "check the path"),
    "no key": (CERTIFICATE, None, "local_key_path {key} cannot be read", "check the path"),
    "empty": (b"", private(KEY), "local_certificate_path {certificate} holds no certificate", "PEM"),
    "not PEM": (b"\x30\x82", private(KEY), "{certificate} holds no certificate", "PEM"),
    "damaged": (CERTIFICATE[:200] + CERTIFICATE[210:], private(KEY), "{certificate} holds no certificate", "PEM"),
    "a damaged key": (CERTIFICATE, b"-----BEGIN PRIVATE KEY-----\n", "{key} holds no usable private key", "PEM"),
    "another's key": (
        CERTIFICATE, private(ec.generate_private_key(ec.SECP256R1())),
        "{key} holds the key of another certificate than {certificate}", "give the two that belong",
    ),
    "an encrypted key": (CERTIFICATE, private(KEY, b"word"), "{key} is encrypted", "without a passphrase"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSABLE)
def test_files_that_cannot_be_used_are_named(files: Files, name: str) -> None:
    for file, content in zip((files.certificate, files.key), UNUSABLE[name][:2], strict=True):
        if content is not None:
            file.write_bytes(content)
    with pytest.raises(ServiceError) as caught:
        LocalCertificate("IMAP-1993", files.certificate, files.key)
    *_, words, mend = UNUSABLE[name]
    assert words.format(certificate=files.certificate, key=files.key) in str(caught.value)
    assert mend in str(caught.value)
    assert str(caught.value).startswith("[IMAP-1993] ")


def test_a_weak_key_is_named(files: Files) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - it is to be refused
    files.write(certificate(key, QUARTER), private(key))
    with pytest.raises(ServiceError, match="is too weak"):
        LocalCertificate("IMAP-1993", files.certificate, files.key)


@pytest.mark.usefixtures("looked_at_every_time")
@pytest.mark.parametrize("name", UNUSABLE)
def test_files_that_became_unusable_leave_the_old_ones_in_use(
    files: Files, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    files.write(CERTIFICATE, private(KEY))
    ours = LocalCertificate("IMAP-1993", files.certificate, files.key)
    before = ours.context
    assert ours.context is before
    for file, content in zip((files.certificate, files.key), UNUSABLE[name][:2], strict=True):
        file.unlink() if content is None else files.write_one(file, content)
    for _ in range(3):
        assert ours.context is before
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert UNUSABLE[name][2].format(certificate=files.certificate, key=files.key) in caplog.text
    assert "the certificate that was read before stays in use" in caplog.text
    files.write(CERTIFICATE, private(KEY))
    assert ours.context is not before
    assert "the new certificate" in caplog.text


def test_the_files_are_looked_at_once_a_second_at_most(files: Files) -> None:
    files.write(CERTIFICATE, private(KEY))
    ours = LocalCertificate("IMAP-1993", files.certificate, files.key)
    before = ours.context
    files.write(CERTIFICATE, private(KEY))
    assert ours.context is before


@pytest.mark.usefixtures("looked_at_every_time")
@on_both_loops
async def test_the_next_handshake_uses_the_new_certificate(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.write(certificate(KEY, QUARTER, name="first"), private(KEY))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with proxy_to(9, local_certificate=files.certificate, local_key=files.key) as proxy:
        proxy.has_seen("IMAP4REV1")
        seen = []
        for name in ("first", "second", "third"):
            files.write(certificate(KEY, QUARTER, name=name), private(KEY))
            reader, writer = await proxy.connect(ssl=context)
            assert (await reader.readline()).startswith(b"* OK")
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            seen.append(x509.load_der_x509_certificate(shown).subject.rfc4514_string())
            writer.close()
        assert seen == ["CN=first", "CN=second", "CN=third"]


@on_both_loops
async def test_a_listener_does_not_open_with_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"\[TEST\] local_certificate_path .* cannot be read"):
        async with proxy_to(9, local_certificate=tmp_path / "missing.pem"):
            pass
