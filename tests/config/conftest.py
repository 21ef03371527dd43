"""What the tests of the configuration share."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding


@pytest.fixture(scope="session")
def authority_pem() -> bytes:
    """A private authority's certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test authority")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    certificate = builder.not_valid_before(now - day).not_valid_after(now + day).sign(key, hashes.SHA256())
    return certificate.public_bytes(Encoding.PEM)


@pytest.fixture
def certificate(tmp_path: Path, authority_pem: bytes) -> Path:
    file = tmp_path / "authority.pem"
    file.write_bytes(authority_pem)
    return file
