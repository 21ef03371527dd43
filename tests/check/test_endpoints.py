"""The provider's endpoints: what an answer to the probe says of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emailproxy.check.endpoints import GOOGLE_TOKEN_URL, judged, urls_of
from emailproxy.check.finding import Finding, Grade, Link
from emailproxy.config.model import Account, FlowName, ProviderName
from tests.check.site import Site, broken, of
from tests.fakes.provider import Fault, RedirectToSelf, Reset, garbage, html_page, throttled, unavailable

FAULTS: dict[str, tuple[Fault, str, str]] = {
    "a redirect": (RedirectToSelf(), "sends elsewhere (HTTP 307)", "check token_url"),
    "a web page": (html_page(), "a web page came in place of the provider's answer", "in a browser"),
    "a web page of 404": (html_page(404), "answers with a web page (HTTP 404)", "check token_url"),
    "garbage": (garbage(), "not as OAuth 2.0 has it (HTTP 200)", "check token_url"),
    "503": (unavailable(), "the provider is down or busy (HTTP 503 from ", "tokens are kept"),
    "429": (throttled(), "the provider is down or busy (HTTP 429 from ", "tokens are kept"),
    "a reset": (Reset(), "gave no answer (", "check token_url"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_an_endpoint_that_is_none_ends_the_chain(site: Site, name: str) -> None:
    fault, words, mend = FAULTS[name]
    site.provider.next(fault)
    last = broken(await site.findings())
    assert (last.link, last.grade) == (Link.ENDPOINT, Grade.FAILED)
    assert words in last.text
    assert mend in last.action


async def test_an_endpoint_of_several_accounts_is_asked_once(site: Site) -> None:
    (endpoint,) = of(await site.findings(None), Link.ENDPOINT)
    assert endpoint.grade is Grade.OK
    assert "is an OAuth 2.0 token endpoint (HTTP 4" in endpoint.text
    assert endpoint.facts["status"] in (400, 401)


async def test_through_an_http_proxy_the_way_is_the_proxys_business(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://user:canary@127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    findings = await site.findings()
    skipped = [finding for finding in findings if finding.grade is Grade.SKIPPED]
    told = "asked through the proxy http://127.0.0.1:1 (http_proxy in the environment)"
    assert [finding.text for finding in skipped] == [told]
    assert "canary" not in str(findings)
    assert "its proxy http://127.0.0.1:1 cannot be reached (Connection refused)" in broken(findings).text


def answer(**fields: str) -> Finding:
    return judged("token_url of x", "login.example", 400, json.dumps(fields).encode(), {})


def test_a_tenant_that_does_not_exist_is_found_by_the_probe() -> None:
    said = "AADSTS90002: Tenant 'contoso.example' not found. Check to make sure you have the correct tenant ID."
    finding = answer(error="invalid_request", error_description=said)
    assert finding.grade is Grade.FAILED
    assert "does not know this tenant" in finding.text
    assert "token_url" in finding.action


def test_what_a_probe_lacks_is_no_fault_of_the_endpoint() -> None:
    said = "AADSTS900144: The request body must contain the following parameter: 'refresh_token'."
    assert answer(error="invalid_request", error_description=said).grade is Grade.OK


@pytest.mark.parametrize("body", [b"[]", b'{"error": 5}', b"{}", b"", b"[" * 50_000])
def test_what_is_no_error_of_oauth_is_told(body: bytes) -> None:
    assert judged("x", "login.example", 400, body, {}).grade is Grade.FAILED


def account(**changes: Any) -> Account:
    settings: dict[str, Any] = {"name": "a@x", "section": "a@x", "flow": FlowName.AUTHORIZATION_CODE} | changes
    return Account(**settings)


def test_every_endpoint_is_reached_and_one_of_a_host_is_enough() -> None:
    one = account(token_url="https://a/token", permission_url="https://a/authorize")
    two = account(name="b@x", token_url="https://a/token", permission_url="https://b/authorize")
    assert urls_of([one, two]) == ({"https://a/token": "a@x"}, {"https://b/authorize": "b@x"})


def test_a_service_account_asks_where_key_files_point() -> None:
    google = account(flow=FlowName.SERVICE_ACCOUNT, provider=ProviderName.GOOGLE)
    command = account(flow=FlowName.TOKEN_COMMAND, token_command=("x",))
    assert urls_of([google, command]) == ({GOOGLE_TOKEN_URL: "a@x"}, {})
