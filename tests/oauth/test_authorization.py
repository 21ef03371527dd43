"""The authorization request: what is sent to the provider by the person's browser."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from emailproxy.config.model import Account, FlowName, ProviderName
from emailproxy.errors import AccountUnusable
from emailproxy.oauth.authorization import authorization_url
from emailproxy.oauth.happenings import Event
from emailproxy.secret import Secret
from tests.oauth.world import ADA, PASSWORD, World, browse

USUAL = {
    "response_type", "client_id", "redirect_uri", "scope", "state", "code_challenge", "code_challenge_method",
    "access_type", "login_hint",
}  # fmt: skip


def account(**changes: Any) -> Account:
    settings: dict[str, Any] = {
        "name": ADA,
        "section": ADA,
        "flow": FlowName.AUTHORIZATION_CODE,
        "permission_url": "https://provider.example/authorize",
        "scope": "mail offline_access",
        "client_id": "an-id",
    }
    return Account(**{**settings, **changes})


def asked(**changes: Any) -> dict[str, list[str]]:
    url = authorization_url(account(**changes), ADA, Secret("s" * 43), Secret("v" * 43))
    assert url.startswith(f"{changes.get('permission_url', 'https://provider.example/authorize')}?")
    return parse_qs(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)


def test_an_account_with_nothing_special_asks_for_the_usual() -> None:
    query = asked()
    assert query.keys() == USUAL
    assert query["access_type"] == ["offline"]
    assert query["scope"] == ["mail offline_access"]


HINTS: list[tuple[dict[str, Any], list[str] | None]] = [
    ({}, [ADA]),
    ({"login_hint": "somebody@else.example"}, ["somebody@else.example"]),
    ({"login_hint": "a-subject-id"}, ["a-subject-id"]),
    ({"login_hint": ""}, None),
    ({"token_owner": "owner@example.org"}, ["owner@example.org"]),
    ({"token_owner": "owner@example.org", "login_hint": "hint@example.org"}, ["hint@example.org"]),
    ({"token_owner": "owner@example.org", "login_hint": ""}, None),
    ({"token_owner": "owner"}, None),
    ({"token_owner": "*"}, [ADA]),
]


@pytest.mark.parametrize(("changes", "hint"), HINTS)
def test_the_hint_is_whose_sign_in_it_should_be(changes: dict[str, Any], hint: list[str] | None) -> None:
    assert asked(**changes).get("login_hint") == hint


@pytest.mark.parametrize(
    ("scope", "sent"),
    [
        ("https://outlook.office.com/IMAP.AccessAsUser.All", "{} openid profile offline_access"),
        ("offline_access https://outlook.office.com/SMTP.Send", "{} openid profile"),
        ("openid  profile\toffline_access mail", "openid profile offline_access mail"),
    ],
)
def test_microsoft_is_asked_for_what_msal_redeems(scope: str, sent: str) -> None:
    assert asked(scope=scope, provider=ProviderName.MICROSOFT)["scope"] == [sent.format(scope)]
    assert asked(scope=scope)["scope"] == [scope]
    assert asked(scope=scope, provider=ProviderName.GOOGLE)["scope"] == [scope]


def test_prompt_and_further_parameters_are_added() -> None:
    further = (("domain_hint", "example.org"), ("claims", '{"id_token": {"a&b": null}}'), ("empty", ""))
    query = asked(prompt="select_account consent", authorize_params=further)
    assert query.keys() == {*USUAL, "prompt", "domain_hint", "claims", "empty"}
    assert query["prompt"] == ["select_account consent"]
    assert query["claims"] == ['{"id_token": {"a&b": null}}']
    assert "prompt" not in asked()


@pytest.mark.parametrize(
    ("changes", "prompt"), [({}, ["consent"]), ({"prompt": "select_account consent"}, ["select_account consent"])]
)
def test_google_shows_its_consent_page_or_gives_no_refresh_token(changes: dict[str, Any], prompt: list[str]) -> None:
    assert asked(permission_url="https://accounts.google.com/o/oauth2/auth", **changes)["prompt"] == prompt


def test_no_parameter_is_sent_twice() -> None:
    url = authorization_url(
        account(authorize_params=(("access_type", "online"),)), ADA, Secret("s" * 43), Secret("v" * 43)
    )
    names = [name for name, _ in parse_qsl(urlsplit(url).query)]
    assert len(names) == len(set(names))
    assert ("access_type", "online") in parse_qsl(urlsplit(url).query)


def test_without_a_permission_url_the_key_is_named() -> None:
    with pytest.raises(AccountUnusable, match=r"permission_url; add it to \[ada@example.org\]"):
        asked(permission_url=None)


async def test_what_is_asked_for_reaches_the_provider(world: World) -> None:
    world.account(prompt="login", authorize_params=(("domain_hint", "example.org"),))
    process = await world.process()
    waiting = await process.broker.sign_in(ADA, PASSWORD)
    assert waiting is not None
    assert (await browse(waiting.link)).status == 200
    [query] = world.provider.authorizations
    assert (query["prompt"], query["domain_hint"]) == ("login", "example.org")


async def test_hooks_are_told_of_a_sign_in_once(world: World) -> None:
    world.account()
    process = await world.process()
    for _ in range(2):
        waiting = await process.broker.sign_in(ADA, PASSWORD)
        assert waiting is not None
    [told] = process.told
    assert (told.event, told.account) == (Event.CONSENT_REQUIRED, ADA)
    assert (told.link, told.url, told.user_code) == (waiting.link, waiting.url, "")
    assert told.expires_at_s == waiting.expires_at_s == world.turned.wall + 24 * 3600
    assert told.reason == f"{ADA} must be signed in: open {waiting.link} in a browser"
