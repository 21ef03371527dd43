"""How a client proves to Microsoft who it is: secret, certificate, federated assertion."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID

from emailproxy.config.model import FlowName
from emailproxy.config.sources import FromEnvironment, FromFile
from emailproxy.errors import AccountUnusable, ProviderRefused
from emailproxy.secret import Secret
from tests.fakes.entra import App, federated, thumbprint
from tests.fakes.microsoft import PUBLIC, TENANT_ID, FakeMicrosoft
from tests.oauth.tenancy import PUBLIC_APP, REDIRECT_URI, SECRET_APP, Tenancy
from tests.oauth.world import CLIENT_SECRET

CERTIFICATE_APP = App("certificate-client", redirect_uris=(REDIRECT_URI,))
FEDERATED_APP = App("federated-client", subjects={"system:serviceaccount:mail:proxy"})
PASSPHRASE = "canary-passphrase"

Pair = tuple[rsa.RSAPrivateKey, x509.Certificate]


def pair() -> Pair:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "emailproxy")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    validity = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    return key, validity.serial_number(x509.random_serial_number()).sign(key, hashes.SHA256())


@pytest.fixture(scope="module")
def registered() -> Pair:
    return pair()


@pytest.fixture
async def tenancy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: Pair) -> AsyncIterator[Tenancy]:
    app = App(CERTIFICATE_APP.id, certificates=[registered[1]], redirect_uris=(REDIRECT_URI,))
    apps = PUBLIC_APP, SECRET_APP, app, FEDERATED_APP
    async with Tenancy.at(tmp_path, monkeypatch, *apps) as tenancy:
        yield tenancy


def files(folder: Path, key: rsa.RSAPrivateKey, certificate: x509.Certificate, kind: str) -> dict[str, Any]:
    """The certificate and its key as a configuration names them."""
    encrypted = BestAvailableEncryption(PASSPHRASE.encode())
    settings: dict[str, Any] = {"certificate": folder / "client"}
    if kind == "pfx":
        (folder / "client").write_bytes(pkcs12.serialize_key_and_certificates(b"", key, certificate, None, encrypted))
        return settings | {"key_passphrase": Secret(PASSPHRASE)}
    encryption = encrypted if kind == "encrypted pem" else NoEncryption()
    (folder / "client").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    if kind == "encrypted pem":
        settings["key_passphrase"] = Secret(PASSPHRASE)
    return settings | {"certificate_key": folder / "key"}


def with_certificate(tenancy: Tenancy, **settings: Any) -> Any:
    return tenancy.application(client_id=CERTIFICATE_APP.id, client_secret=None, **settings)


@pytest.mark.parametrize("kind", ["pem", "encrypted pem", "pfx"])
async def test_a_certificate_signs_an_assertion(tenancy: Tenancy, tmp_path: Path, registered: Pair, kind: str) -> None:
    await tenancy.acquire(with_certificate(tenancy, **files(tmp_path, *registered, kind)))
    asked = tenancy.microsoft.asked[-1]
    assert asked.header["alg"] == "PS256"
    assert asked.header["x5t#S256"].rstrip("=") == thumbprint(registered[1])
    assert asked.claims["iss"] == asked.claims["sub"] == CERTIFICATE_APP.id
    assert asked.claims["aud"] == f"https://{PUBLIC}/{TENANT_ID}/oauth2/v2.0/token"
    assert 0 < asked.claims["exp"] - asked.claims["iat"] <= 600
    assert "client_secret" not in asked.form


async def test_every_request_has_an_assertion_of_its_own(tenancy: Tenancy, tmp_path: Path, registered: Pair) -> None:
    account = with_certificate(tenancy, **files(tmp_path, *registered, "pem"))
    for _ in range(2):
        await tenancy.acquire(account)
    first, second = (asked.claims["jti"] for asked in tenancy.microsoft.asked if asked.endpoint == "token")
    assert first != second


async def test_a_certificate_serves_people_too(tenancy: Tenancy, tmp_path: Path, registered: Pair) -> None:
    settings = files(tmp_path, *registered, "pem")
    account = tenancy.account(FlowName.AUTHORIZATION_CODE, CERTIFICATE_APP.id, **settings)
    tokens = await tenancy.acquire(account, tenancy.consent(CERTIFICATE_APP))
    await tenancy.refresh(account, tokens)
    assert all(asked.claims for asked in tenancy.microsoft.asked if asked.endpoint == "token")


async def test_a_renewed_certificate_is_used_at_once(tenancy: Tenancy, tmp_path: Path, registered: Pair) -> None:
    account = with_certificate(tenancy, **files(tmp_path, *registered, "pem"))
    await tenancy.acquire(account)
    renewed = pair()
    files(tmp_path, *renewed, "pem")
    with pytest.raises(ProviderRefused, match="AADSTS700027"):
        await tenancy.acquire(account)
    tenancy.microsoft.apps[CERTIFICATE_APP.id].certificates.append(renewed[1])
    await tenancy.acquire(account)


async def test_a_certificate_of_another_key_is_found_before_anybody_is_asked(
    tenancy: Tenancy, tmp_path: Path, registered: Pair
) -> None:
    settings = files(tmp_path, pair()[0], registered[1], "pem")
    with pytest.raises(AccountUnusable, match="does not belong to the private key"):
        await tenancy.acquire(with_certificate(tenancy, **settings))
    assert tenancy.microsoft.asked == []


# ---- federated assertions


async def test_a_federated_assertion_is_read_at_every_use(tenancy: Tenancy, tmp_path: Path) -> None:
    (subject,) = FEDERATED_APP.subjects
    file = tmp_path / "token"
    account = tenancy.application(client_id=FEDERATED_APP.id, client_secret=None, client_assertion_file=file)
    with pytest.raises(AccountUnusable, match=r"client_assertion_file of ada@example\.org cannot be read"):
        await tenancy.acquire(account)
    file.write_text(federated(subject, life_s=-60) + "\n")
    with pytest.raises(ProviderRefused, match="AADSTS700024"):
        await tenancy.acquire(account)
    file.write_text(federated(subject))
    await tenancy.acquire(account)
    assert tenancy.microsoft.asked[-1].form["client_assertion"] == file.read_text()
    file.write_text(federated("system:serviceaccount:mail:other"))
    with pytest.raises(ProviderRefused, match="AADSTS700213"):
        await tenancy.acquire(account)


# ---- secrets


async def test_a_secret_is_read_at_every_use(tenancy: Tenancy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text(f"{CLIENT_SECRET}\n")
    monkeypatch.setenv("MAIL_SECRET", CLIENT_SECRET)
    account = tenancy.application(client_secret=FromFile(tmp_path / "secret"))
    await tenancy.acquire(account)
    await tenancy.acquire(tenancy.application(client_secret=FromEnvironment("MAIL_SECRET")))
    (tmp_path / "secret").write_text("canary-renewed")
    renew(tenancy.microsoft, "canary-renewed")
    await tenancy.acquire(account)


def renew(microsoft: FakeMicrosoft, secret: str) -> None:
    microsoft.apps[SECRET_APP.id] = App(SECRET_APP.id, secret)


REFUSED = {
    "a wrong secret": (SECRET_APP.id, "canary-wrong-secret", "AADSTS7000215"),
    "no secret": (SECRET_APP.id, None, "AADSTS7000218"),
    "a secret of a public client": (PUBLIC_APP.id, "canary-needless", "AADSTS700025"),
    "an unknown client": ("nobody", None, "AADSTS700016"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_client_that_is_not_believed(tenancy: Tenancy, name: str) -> None:
    client_id, secret, said = REFUSED[name]
    account = tenancy.account(
        FlowName.AUTHORIZATION_CODE, client_id, client_secret=None if secret is None else Secret(secret)
    )
    with pytest.raises(ProviderRefused, match=said) as caught:
        await tenancy.acquire(account, tenancy.consent(SECRET_APP))
    assert caught.value.code in {"invalid_client", "unauthorized_client"}
    assert "canary" not in str(caught.value)


async def test_an_application_without_credentials_asks_nobody(tenancy: Tenancy) -> None:
    with pytest.raises(AccountUnusable, match="has nothing to authenticate with; add client_secret"):
        await tenancy.acquire(tenancy.application(client_secret=None))
    assert tenancy.microsoft.asked == []
