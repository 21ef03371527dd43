"""The client credentials grant through a mail login: every way in which an application proves who it is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness.realm import Settings, realm
from tests.e2e.harness.world import CLIENT_ID, CLIENT_SECRET, USER
from tests.fakes.azure import HEADER, KNOWN, FakeAzure
from tests.fakes.entra import App, federated, thumbprint
from tests.fakes.microsoft import TENANT_ID
from tests.fakes.provider import Reply, altered
from tests.oauth.certificates import made

pytestmark = pytest.mark.system("dovecot")

PASSPHRASE = "canary passphrase"
CERTIFICATE = made("an application")
Proof = Callable[[Path], Settings]


def pem(folder: Path) -> Settings:
    """Certificate and key in files of their own."""
    return {
        "jwt_certificate_path": written(folder / "client.pem", CERTIFICATE.certificate_pem),
        "jwt_key_path": written(folder / "client.key", CERTIFICATE.key_pem()),
    }


def one_pem_with_a_passphrase(folder: Path) -> Settings:
    both = CERTIFICATE.certificate_pem + CERTIFICATE.key_pem(PASSPHRASE)
    return {"jwt_certificate_path": written(folder / "both.pem", both), "jwt_key_passphrase": PASSPHRASE}


def pfx_with_a_passphrase(folder: Path) -> Settings:
    passphrase = written(folder / "passphrase", f"{PASSPHRASE}\n".encode())
    pfx = written(folder / "client.pfx", CERTIFICATE.pfx(PASSPHRASE))
    return {"jwt_certificate_path": pfx, "jwt_key_passphrase_file": passphrase}


def written(path: Path, content: bytes) -> Path:
    path.touch(0o600)
    path.write_bytes(content)
    return path


CERTIFICATES = pytest.mark.parametrize("proof", [pem, one_pem_with_a_passphrase, pfx_with_a_passphrase])


def without_secret(account: Settings) -> Settings:
    return {key: value for key, value in account.items() if key != "client_secret"}


async def test_a_secret(tmp_path: Path) -> None:
    async with realm(tmp_path) as ours:
        async with ours.proxy(ours.application) as proxy:
            await ours.log_in()
            await proxy.printed(f"account {USER} is set up")
            assert "[AUTHENTICATIONFAILED]" in await ours.refusal(password="not that of the first login")
        [asked] = ours.provider.requests
        assert (asked.grant, asked.form["client_secret"]) == ("client_credentials", CLIENT_SECRET)


@CERTIFICATES
async def test_an_assertion_signed_with_a_certificates_key(tmp_path: Path, proof: Proof) -> None:
    """`private_key_jwt`, at a provider that checks it as RFC 7523 section 3 says."""
    async with realm(tmp_path) as ours:
        ours.canaries.add(PASSPHRASE)
        ours.provider.client_keys[CLIENT_ID] = CERTIFICATE.key.public_key()
        ours.provider.next(altered(expires_in=1))
        async with ours.proxy(without_secret(ours.application) | proof(tmp_path)):
            await ours.log_in()
            await ours.log_in_until(lambda: len(ours.provider.assertions) > 1)
        assert {request.status for request in ours.provider.requests} == {200}
        assert ours.provider.assertions[0][0]["x5t#S256"] == thumbprint(CERTIFICATE.certificate)


async def test_a_secret_at_microsoft(tmp_path: Path) -> None:
    app = App("the-application", CLIENT_SECRET)
    async with realm(tmp_path) as ours, ours.microsoft(app) as microsoft:
        async with ours.proxy(ours.at_microsoft(app, "client_credentials")):
            await ours.log_in()
        [asked] = (asked for asked in microsoft.asked if asked.endpoint == "token")
        assert (asked.form["grant_type"], asked.form["client_secret"]) == ("client_credentials", CLIENT_SECRET)
        assert asked.form["scope"] == "https://outlook.office365.com/.default"


@CERTIFICATES
async def test_a_certificate_at_microsoft(tmp_path: Path, proof: Proof) -> None:
    app = App("the-application", certificates=[CERTIFICATE.certificate])
    async with realm(tmp_path) as ours, ours.microsoft(app) as microsoft:
        ours.canaries.add(PASSPHRASE)
        async with ours.proxy(ours.at_microsoft(app, "client_credentials") | proof(tmp_path)):
            await ours.log_in()
        [asked] = (asked for asked in microsoft.asked if asked.endpoint == "token")
        assert asked.header["alg"] == "PS256"
        assert TENANT_ID in asked.claims["aud"]


async def test_a_federated_assertion_that_somebody_renews(tmp_path: Path) -> None:
    async with realm(tmp_path) as ours:
        first, second = federated("pod"), federated("pod", life_s=601)
        ours.provider.federated.update({first: CLIENT_ID, second: CLIENT_ID})
        file = written(tmp_path / "assertion", first.encode())
        ours.provider.next(altered(expires_in=1))
        async with ours.proxy(without_secret(ours.application) | {"client_assertion_file": file}):
            await ours.log_in_until(lambda: len(ours.provider.requests) == 1)
            file.write_text(f"{second}\n")
            await ours.log_in_until(lambda: len(ours.provider.requests) > 1)
            await ours.log_in()
        assert [request.form["client_assertion"] for request in ours.provider.requests] == [first, second]


async def test_a_federated_assertion_at_microsoft_that_somebody_renews(tmp_path: Path) -> None:
    app = App("the-application", subjects={"system:serviceaccount:mail:proxy"})
    async with realm(tmp_path) as ours, ours.microsoft(app) as microsoft:
        file = written(tmp_path / "assertion", federated("another's").encode())
        account = ours.at_microsoft(app, "client_credentials") | {"client_assertion_file": file}
        async with ours.proxy(account):
            told = await ours.refusal()
            assert "[CONTACTADMIN]" in told
            assert "AADSTS700213" in told
            file.write_text(federated("system:serviceaccount:mail:proxy"))
            await ours.log_in()
        tokens = [asked for asked in microsoft.asked if asked.endpoint == "token"]
        assert [(asked.status, asked.claims["sub"]) for asked in tokens] == [
            (401, "another's"),
            (200, "system:serviceaccount:mail:proxy"),
        ]


@pytest.mark.parametrize("identity", ["system", KNOWN])
async def test_a_managed_identity(tmp_path: Path, identity: str) -> None:
    async with realm(tmp_path) as ours, FakeAzure(now=time.time, further_claims={"email": USER}) as azure:
        ours.env |= azure.app_service
        ours.canaries.add(HEADER)
        account: Settings = {
            "provider": "microsoft",
            "oauth2_flow": "client_credentials",
            "oauth2_scope": "https://outlook.office365.com/.default",
            "managed_identity": identity,
        }
        azure.next(Reply(500, json.dumps({"statusCode": 500, "message": "starting"})))
        async with ours.proxy(account):
            await ours.log_in()
        assert len(azure.wanted) == 2
        wanted = azure.wanted[-1]
        assert wanted.query["resource"] == "https://outlook.office365.com"
        assert wanted.query.get("client_id") == (None if identity == "system" else KNOWN)
        assert wanted.headers["X-IDENTITY-HEADER"] == HEADER
