"""Microsoft's grants, from msal to the provider's own checks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from emailproxy.config.model import FlowName
from emailproxy.errors import AccountUnusable, AuthorizationPending, ProviderRefused
from emailproxy.oauth.flow import DeviceAuthorization, DeviceFlow, TokenSet
from emailproxy.oauth.microsoft import DeviceCode
from emailproxy.oauth.microsoft.discoveries import MAX_AGE_S, MAX_DOCUMENTS, Discoveries
from emailproxy.secret import Secret
from tests.fakes.entra import App
from tests.fakes.microsoft import CHINA, GOVERNMENT, MAIL_SCOPE, PUBLIC, SHARED
from tests.fakes.provider import ABSENT, altered
from tests.oauth.tenancy import PUBLIC_APP, REDIRECT_URI, SECRET_APP, VERIFIER, Tenancy
from tests.oauth.world import ADA

AUTHORIZATION_CODE, DEVICE = FlowName.AUTHORIZATION_CODE, FlowName.DEVICE
BOTH_KINDS = pytest.mark.parametrize("app", [PUBLIC_APP, SECRET_APP], ids=["public", "confidential"])


@pytest.fixture
async def tenancy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tenancy]:
    async with Tenancy.at(tmp_path, monkeypatch) as tenancy:
        yield tenancy


# ---- the authorization code grant


@BOTH_KINDS
async def test_a_code_becomes_tokens(tenancy: Tenancy, app: App) -> None:
    account = tenancy.account(AUTHORIZATION_CODE, app.id)
    consent = tenancy.consent(app)
    tokens = await tenancy.acquire(account, consent)
    claims = tenancy.microsoft.verify(tokens.access_token.reveal())
    assert (claims["email"], claims["scp"]) == (ADA, MAIL_SCOPE)
    assert tokens.expires_at_s == tenancy.turned.wall + 3599
    assert tokens.refresh_token
    assert tokens.scope == MAIL_SCOPE
    assert tokens.identities == (ADA,)
    asked = tenancy.microsoft.asked[-1]
    assert asked.form["code"] == consent.code.reveal()
    assert asked.form["code_verifier"] == VERIFIER
    assert asked.form["redirect_uri"] == REDIRECT_URI
    assert set(asked.form["scope"].split()) == {MAIL_SCOPE, "openid", "profile", "offline_access"}


async def test_a_wrong_verifier_is_refused_and_the_code_sent_once(tenancy: Tenancy) -> None:
    account = tenancy.account(AUTHORIZATION_CODE)
    with pytest.raises(ProviderRefused) as caught:
        await tenancy.acquire(account, tenancy.consent(PUBLIC_APP, verifier="w" * 43))
    assert caught.value.code == "invalid_grant"
    assert "AADSTS501481" in str(caught.value)
    assert tenancy.microsoft.endpoints().count("token") == 1


async def test_whose_tokens_they_are_is_said(tenancy: Tenancy) -> None:
    account = tenancy.account(AUTHORIZATION_CODE)
    tokens = await tenancy.acquire(account, tenancy.consent(PUBLIC_APP, user="eve@example.org"))
    assert tokens.identities == ("eve@example.org",)


# ---- refresh


@BOTH_KINDS
async def test_a_refresh_brings_new_tokens_of_both_kinds(tenancy: Tenancy, app: App) -> None:
    account = tenancy.account(AUTHORIZATION_CODE, app.id)
    old = await tenancy.acquire(account, tenancy.consent(app))
    new = await tenancy.refresh(account, old)
    newer = await tenancy.refresh(account, new)
    assert len({tokens.access_token for tokens in (old, new, newer)}) == 3
    assert len({tokens.refresh_token for tokens in (old, new, newer)}) == 3
    assert tenancy.microsoft.verify(newer.access_token.reveal())["email"] == ADA
    assert tenancy.microsoft.asked[-1].form["grant_type"] == "refresh_token"


async def test_a_refresh_token_that_is_not_replaced_is_kept(tenancy: Tenancy) -> None:
    account = tenancy.account(AUTHORIZATION_CODE)
    old = await tenancy.acquire(account, tenancy.consent(PUBLIC_APP))
    tenancy.microsoft.next(altered(refresh_token=ABSENT, scope=ABSENT))
    new = await tenancy.refresh(account, old)
    assert (new.refresh_token, new.scope) == (old.refresh_token, old.scope)


async def test_a_revoked_refresh_token_is_a_definite_refusal(tenancy: Tenancy) -> None:
    account = tenancy.account(AUTHORIZATION_CODE)
    tokens = await tenancy.acquire(account, tenancy.consent(PUBLIC_APP))
    tenancy.microsoft.revoke_refresh_tokens()
    for _ in range(2):
        with pytest.raises(ProviderRefused) as caught:
            await tenancy.refresh(account, tokens)
        assert caught.value.code == "invalid_grant"
        assert "AADSTS50173" in str(caught.value)
    assert tenancy.microsoft.endpoints().count("token") == 3  # msal did not answer from what it remembers


async def test_without_a_refresh_token_a_person_is_needed(tenancy: Tenancy) -> None:
    with pytest.raises(ProviderRefused) as caught:
        await tenancy.refresh(tenancy.account(AUTHORIZATION_CODE), TokenSet(Secret("a"), None))
    assert caught.value.code == "invalid_grant"
    assert tenancy.microsoft.asked == []


# ---- the device authorization grant


def device_flow(tenancy: Tenancy) -> DeviceFlow:
    flow = tenancy.flows[DEVICE]
    assert isinstance(flow, DeviceCode)
    return flow


@BOTH_KINDS
async def test_a_device_code_is_polled_once_at_a_time(tenancy: Tenancy, app: App) -> None:
    account, flow = tenancy.account(DEVICE, app.id), device_flow(tenancy)
    device = await flow.begin(account)
    assert isinstance(device, DeviceAuthorization)
    assert (device.verification_uri, device.interval_s) == ("https://microsoft.com/devicelogin", 5)
    assert device.expires_at_s == tenancy.turned.wall + 900
    for polls in (1, 2):
        with pytest.raises(AuthorizationPending) as pending:
            await flow.acquire(account, device)
        assert not pending.value.slow_down
        assert tenancy.microsoft.endpoints().count("token") == polls
    tenancy.microsoft.enter(device.user_code)
    tokens = await flow.acquire(account, device)
    assert tokens.identities == (ADA,)
    assert tenancy.microsoft.verify((await flow.refresh(account, tokens)).access_token.reveal())["email"] == ADA


@pytest.mark.parametrize(
    ("turn_s", "code", "said"),
    [(0, "authorization_declined", "declined"), (901, "expired_token", "in time")],
)
async def test_a_device_code_that_comes_to_nothing(tenancy: Tenancy, turn_s: float, code: str, said: str) -> None:
    account, flow = tenancy.account(DEVICE), device_flow(tenancy)
    device = await flow.begin(account)
    tenancy.microsoft.enter(device.user_code, approved=False)
    tenancy.turned.turn(turn_s)
    with pytest.raises(ProviderRefused) as caught:
        await flow.acquire(account, device)
    assert caught.value.code == code
    assert said in str(caught.value)


# ---- application tokens


async def test_client_credentials_are_asked_for_anew_every_time(tenancy: Tenancy) -> None:
    account = tenancy.application()
    first = await tenancy.acquire(account)
    second = await tenancy.refresh(account, first)
    assert first.access_token != second.access_token  # msal would serve the first again
    assert second.refresh_token is None
    assert tenancy.microsoft.verify(second.access_token.reveal())["roles"][0] == "IMAP.AccessAsApp"
    assert tenancy.microsoft.asked[-1].form["scope"] == "https://outlook.office365.com/.default"


# ---- whom it asks


async def test_endpoints_are_asked_for_once_a_day(tenancy: Tenancy) -> None:
    for _ in range(3):
        await tenancy.acquire(tenancy.application())
    assert tenancy.microsoft.endpoints() == ["openid-configuration", "token", "token", "token"]
    tenancy.turned.turn(MAX_AGE_S)
    await tenancy.acquire(tenancy.application())
    assert tenancy.microsoft.endpoints()[-2:] == ["openid-configuration", "token"]


@pytest.mark.parametrize("host", [PUBLIC, CHINA, GOVERNMENT])
async def test_each_cloud_is_asked_for_itself(tenancy: Tenancy, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSAL_FORCE_REGION", "westus2")  # msal would ask another host then
    await tenancy.acquire(tenancy.application(host=host))
    account = tenancy.account(AUTHORIZATION_CODE, host=host)
    tokens = await tenancy.acquire(account, tenancy.consent(PUBLIC_APP))
    await tenancy.refresh(account, tokens)
    assert {asked.host for asked in tenancy.microsoft.asked} == {host}
    assert set(tenancy.proxy.asked) == {(host, 443)}


@pytest.mark.parametrize("tenant", SHARED)
async def test_people_of_any_tenant_sign_in_at_the_shared_endpoints(tenancy: Tenancy, tenant: str) -> None:
    account = tenancy.account(AUTHORIZATION_CODE, token_url=f"https://{PUBLIC}/{tenant}/oauth2/v2.0/token")
    await tenancy.acquire(account, tenancy.consent(PUBLIC_APP))
    assert {asked.path.split("/")[1] for asked in tenancy.microsoft.asked} == {tenant}


async def test_a_tenant_that_is_not_there_is_named(tenancy: Tenancy) -> None:
    account = tenancy.application(token_url=f"https://{PUBLIC}/contso.onmicrosoft.com/oauth2/v2.0/token")
    with pytest.raises(ProviderRefused) as caught:
        await tenancy.acquire(account)
    assert "AADSTS90002" in str(caught.value)
    assert "contso.onmicrosoft.com" in str(caught.value)


@pytest.mark.parametrize("url", [f"https://{PUBLIC}/token", f"http://{PUBLIC}/t/oauth2/v2.0/token", ""])
async def test_a_token_url_without_a_tenant_names_the_mend(tenancy: Tenancy, url: str) -> None:
    with pytest.raises(AccountUnusable, match=r"token_url .* is not like .*; mend it in \[ada@example\.org\]"):
        await tenancy.acquire(tenancy.application(token_url=url))


def test_remembered_endpoints_are_bounded() -> None:
    known = Discoveries(lambda: 0.0)
    for number in range(MAX_DOCUMENTS + 1):
        known.put(f"https://{number}/", "{}")
    assert known.get("https://0/") is None
    assert known.get("https://1/") == "{}"


def test_msal_is_imported_when_it_is_needed() -> None:
    program = "import sys, emailproxy.oauth.microsoft; print({'msal', 'requests', 'aiohttp'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "set()\n"


async def test_a_clock_that_is_wrong_here_is_told_once(tenancy: Tenancy, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):  # the provider's replies say what time it really is; the test's clock stands elsewhere
        await tenancy.acquire(tenancy.application())
    (told,) = [record.getMessage() for record in caplog.records if "clock" in record.getMessage()]
    assert told.startswith("this machine's clock is ")
    assert PUBLIC in told
