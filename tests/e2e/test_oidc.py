"""Mail logins with tokens of oidc-provider, a certified OpenID provider, at a Dovecot that verifies them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness.chromium import Chromium, chromium
from tests.e2e.harness.oidc import client_certificate
from tests.e2e.harness.signon import SUCCESS, Trust, sign_in, sign_on, signed_in
from tests.e2e.harness.world import CLIENT_ID, USER

pytestmark = pytest.mark.system("dovecot", "node", "oidc-provider", "chromium", "chromedriver")

SHORT_S = 2
"""A token's life, where a test logs in until it is over."""


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return Trust.create(tmp_path_factory.mktemp("trust"))


@pytest.fixture(scope="module")
def browser(trust: Trust) -> Iterator[Chromium]:
    with chromium(trust.certificate) as started:
        yield started


async def test_a_person_signs_in_with_a_browser_and_stays_signed_in(
    tmp_path: Path, trust: Trust, browser: Chromium
) -> None:
    async with sign_on(tmp_path, trust, lifetime_s=SHORT_S, rotate=True) as ours:
        async with ours.proxy(ours.person):
            shown = await signed_in(browser, await ours.link())
            assert (shown.status, shown.loaded) == (200, [])
            assert SUCCESS in shown.text
            await ours.log_in()
            while ours.provider.granted.count("refresh_token") < 2:
                await ours.log_in()
        [asked] = ours.provider.named("authorization.success")
        assert (asked["account"], asked["challenge"]) == (USER, "S256")
        refreshed = [facts for facts in ours.provider.named("grant.success") if facts["grant"] == "refresh_token"]
        # A refresh token that was used twice would have ended the whole grant.
        assert [facts["rotations"] for facts in refreshed] == list(range(1, len(refreshed) + 1))
        assert ours.provider.named("grant.error") == []


async def test_a_waiting_login_goes_on_when_the_person_has_signed_in(
    tmp_path: Path, trust: Trust, browser: Chromium
) -> None:
    async with sign_on(tmp_path, trust, rotate=False) as ours:
        async with ours.proxy(ours.person, consent_wait=60) as proxy:
            login = asyncio.create_task(ours.log_in())
            await signed_in(browser, await proxy.consent_url(USER))
            await login
        assert ours.provider.granted == ["authorization_code"]


async def test_a_program_signs_in_by_itself(tmp_path: Path, trust: Trust) -> None:
    async with sign_on(tmp_path, trust) as ours:
        async with ours.proxy(ours.application):
            await ours.log_in()
            await ours.log_in()
        [granted] = ours.provider.named("grant.success")
        assert granted["grant"] == "client_credentials"
        assert (granted["client"], granted["authentication"]) == (CLIENT_ID, "client_secret_post")


async def test_a_program_signs_in_with_a_certificate(tmp_path: Path, trust: Trust) -> None:
    certificate = client_certificate(tmp_path)
    async with sign_on(tmp_path, trust, certificate=certificate) as ours:
        account = ours.application | {
            "jwt_certificate_path": certificate.certificate_file,
            "jwt_key_path": certificate.key_file,
        }
        del account["client_secret"]
        async with ours.proxy(account):
            await ours.log_in()
        [granted] = ours.provider.named("grant.success")
        assert (granted["grant"], granted["authentication"]) == ("client_credentials", "private_key_jwt")


async def test_a_person_signs_in_with_a_code_on_another_device(tmp_path: Path, trust: Trust, browser: Chromium) -> None:
    async with sign_on(tmp_path, trust, lifetime_s=SHORT_S) as ours:
        async with ours.proxy(ours.device):
            told = await ours.refusal()
            found = re.search(r"open (https://\S+) and enter the code (\S+-\S+?),", told)
            assert found, told
            url, code = found.groups()
            await browser.open(url)
            await browser.fill("user_code", code)
            await browser.press("Continue")
            await browser.sees("Device Login Confirmation")
            await browser.press("Continue")
            await sign_in(browser)
            await browser.sees("Sign-in Success")
            await ours.provider.happens("grant.success")  # polled for, every five seconds
            await ours.log_in()
            while "refresh_token" not in ours.provider.granted:
                await ours.log_in()
        assert ours.provider.granted[:2] == ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"]
        pending = {facts["error"] for facts in ours.provider.named("grant.error")}
        assert pending <= {"authorization_pending"}
