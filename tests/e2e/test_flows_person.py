"""The authorization code grant through a mail login: our own provider, and Microsoft by msal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.harness.realm import SUCCESS, realm
from tests.e2e.harness.world import CLIENT_SECRET, USER
from tests.fakes.entra import App
from tests.fakes.microsoft import MAIL_SCOPE, TENANT_ID
from tests.fakes.provider import altered

pytestmark = pytest.mark.system("dovecot")

SOON_OVER = altered(expires_in=1)
"""The proxy takes the token for one that ends at once; the mail server goes by the token itself."""
APPS = {"confidential": CLIENT_SECRET, "public": None}


@pytest.mark.parametrize("public", [False, True], ids=["confidential", "public"])
async def test_a_person_approves_in_a_browser(tmp_path: Path, public: bool) -> None:
    async with realm(tmp_path, public=public) as ours:
        account = ours.person | {"client_secret": ""} if public else ours.person
        ours.provider.next(SOON_OVER)
        async with ours.proxy(account):
            await ours.sign_in()
            await ours.log_in_until(lambda: len(ours.provider.requests) > 1)
            await ours.log_in()
        [asked] = ours.provider.authorizations
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        assert asked["login_hint"] == USER
        exchange, refresh = (request.form for request in ours.provider.requests)
        assert (exchange["grant_type"], refresh["grant_type"]) == ("authorization_code", "refresh_token")
        for form in (exchange, refresh):
            assert form.get("client_secret") == (None if public else CLIENT_SECRET)


async def test_what_the_authorization_request_says_besides(tmp_path: Path) -> None:
    async with realm(tmp_path) as ours:
        wishes = {"prompt": "select_account", "login_hint": "", "authorize_params": "domain_hint=example.com&hd=a%20b"}
        async with ours.proxy(ours.person | wishes):
            await ours.sign_in()
        [asked] = ours.provider.authorizations
        assert "login_hint" not in asked
        assert (asked["prompt"], asked["domain_hint"], asked["hd"]) == ("select_account", "example.com", "a b")


@pytest.mark.parametrize("secret", APPS.values(), ids=APPS)
async def test_a_person_signs_in_at_microsoft(tmp_path: Path, secret: str | None) -> None:
    async with realm(tmp_path) as ours:
        app = App("the-application", secret, redirect_uris=(ours.redirect_uri,))
        async with ours.microsoft(app) as microsoft, ours.proxy(ours.at_microsoft(app, "authorization_code")):
            microsoft.next(SOON_OVER)
            await ours.sign_in()
            await ours.log_in_until(lambda: microsoft.endpoints().count("token") > 1)
            await ours.log_in()
        browser, *tokens = (asked for asked in microsoft.asked if asked.endpoint in ("authorize", "token"))
        assert browser.path.split("/")[1] == "contoso.onmicrosoft.com"
        assert [asked.form["grant_type"] for asked in tokens] == ["authorization_code", "refresh_token"]
        for asked in tokens:
            assert TENANT_ID in asked.path
            assert asked.form.get("client_secret") == secret
            assert set(asked.form["scope"].split()) >= {MAIL_SCOPE, "offline_access"}
        assert tokens[0].form["code_verifier"]


async def test_a_person_who_declines_at_first(tmp_path: Path) -> None:
    async with realm(tmp_path) as ours, ours.proxy(ours.person) as proxy:
        ours.provider.auto_approve, ours.provider.deny = False, True
        assert "[UNAVAILABLE]" in await ours.refusal()
        url = await proxy.consent_url(USER)
        assert "access_denied" in (await ours.visit(url)).text
        assert "[UNAVAILABLE]" in await ours.refusal()
        ours.provider.auto_approve, ours.provider.deny = True, False
        assert SUCCESS in (await ours.visit(url)).text
        await ours.log_in()
