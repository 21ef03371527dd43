"""The embedded provider keeps the rules of RFC 6749, 7636, 9207 and 9700; driven with oauthlib over aiohttp."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import jwt
import pytest
from oauthlib.oauth2 import BackendApplicationClient, InvalidGrantError, WebApplicationClient

from emailproxy.demo.certificates import Authority
from emailproxy.demo.ledger import Client, TokenInvalid
from emailproxy.demo.provider import Provider

REDIRECT_URI = "http://localhost:8801/"
PRIVATE = Client("private", "s3cret:%", (REDIRECT_URI, "http://localhost:8801/?keep=1"))
PUBLIC = Client("public", None, (REDIRECT_URI,))
ACCOUNT = "demo@example.test"
VERIFIER = "v" * 64
SCOPE = "mail offline_access"
START_S = 1_700_000_000.0


@dataclass
class Clock:
    seconds: float = START_S

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Browser:
    """A person's browser and a client's back channel."""

    provider: Provider
    session: aiohttp.ClientSession
    clock: Clock

    def url(self, **changes: str | None) -> str:
        client = WebApplicationClient(PRIVATE.id)
        parameters: dict[str, str | None] = {
            "redirect_uri": REDIRECT_URI,
            "state": "st&te",
            "scope": SCOPE,
            "code_challenge": client.create_code_challenge(VERIFIER, "S256"),
            "code_challenge_method": "S256",
            **changes,
        }
        given = {name: value for name, value in parameters.items() if value is not None}
        client_id = given.pop("client_id", PRIVATE.id)
        return str(WebApplicationClient(client_id).prepare_request_uri(self.provider.permission_url, **given))

    async def answer(self, url: str, data: dict[str, str] | None = None) -> dict[str, str]:
        """The parameters that the provider sends back to the redirect_uri."""
        method = "GET" if data is None else "POST"
        async with self.session.request(method, url, data=data, allow_redirects=False) as reply:
            assert reply.status == 302, await reply.text()
            location = urlsplit(reply.headers["Location"])
        assert location._replace(query="").geturl() == REDIRECT_URI
        return {name: value for name, [value] in parse_qs(location.query).items()}

    async def code(self, client: Client = PRIVATE) -> str:
        return (await self.answer(self.url(client_id=client.id)))["code"]

    async def ask(self, form: dict[str, str], client: Client = PRIVATE, **headers: str) -> tuple[int, dict[str, Any]]:
        form = {"client_id": client.id, **({"client_secret": client.secret} if client.secret else {}), **form}
        return await self.ask_bare(form, **headers)

    async def ask_bare(self, form: dict[str, str], **headers: str) -> tuple[int, dict[str, Any]]:
        async with self.session.post(self.provider.token_url, data=form, headers=headers) as reply:
            assert reply.headers["Cache-Control"] == "no-store"
            return reply.status, await reply.json()

    async def redeem(self, code: str, **changes: str) -> tuple[int, dict[str, Any]]:
        form = {"code": code, "redirect_uri": REDIRECT_URI, "code_verifier": VERIFIER, **changes}
        return await self.ask({"grant_type": "authorization_code", **form})

    async def refresh(self, token: str, client: Client = PRIVATE) -> tuple[int, dict[str, Any]]:
        return await self.ask({"grant_type": "refresh_token", "refresh_token": token}, client)


@asynccontextmanager
async def browsing(authority: Authority, **options: Any) -> AsyncIterator[Browser]:
    clock = Clock()
    tls = authority.issue("localhost", "127.0.0.1").server_context()
    options = {"auto_approve": True, "tls": tls, "host": "localhost", "now": clock, **options}
    connector = aiohttp.TCPConnector(ssl=authority.client_context())
    async with (
        Provider([PRIVATE, PUBLIC], **options) as provider,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        yield Browser(provider, session, clock)


@pytest.fixture
async def browser(authority: Authority) -> AsyncIterator[Browser]:
    async with browsing(authority) as opened:
        yield opened


async def test_a_code_becomes_tokens_as_oauthlib_asks_for_them(browser: Browser) -> None:
    client = WebApplicationClient(PRIVATE.id)
    back = await browser.answer(browser.url())
    assert back["state"] == "st&te"
    assert back["iss"] == browser.provider.url
    url, headers, body = client.prepare_token_request(
        browser.provider.token_url,
        code=back["code"],
        redirect_url=REDIRECT_URI,
        client_secret=PRIVATE.secret,
        code_verifier=VERIFIER,
    )
    async with browser.session.post(url, headers=headers, data=body) as reply:
        tokens = client.parse_request_body_response(await reply.text())
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 3600
    claims = browser.provider.verify(tokens["access_token"])
    assert (claims["email"], claims["sub"], claims["scope"]) == (ACCOUNT, ACCOUNT, SCOPE)
    assert (claims["iat"], claims["nbf"], claims["exp"]) == (START_S, START_S, START_S + 3600)

    url, headers, body = client.prepare_refresh_token_request(
        url, tokens["refresh_token"], client_id=PRIVATE.id, client_secret=PRIVATE.secret
    )
    async with browser.session.post(url, headers=headers, data=body) as reply:
        fresh = client.parse_request_body_response(await reply.text())
    assert fresh["refresh_token"] != tokens["refresh_token"]
    assert [(request.grant, request.status) for request in browser.provider.requests] == [
        ("authorization_code", 200),
        ("refresh_token", 200),
    ]


async def test_any_holder_of_the_public_key_can_check_a_token(browser: Browser) -> None:
    browser.clock.seconds = 4_000_000_000
    token = browser.provider.access_token(ACCOUNT)
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "kid": "default", "typ": "JWT"}
    options: Any = {"verify_nbf": False, "verify_iat": False}
    claims = jwt.decode(
        token, browser.provider.public_key_pem, algorithms=["RS256"], audience="mailbox", options=options
    )
    assert claims["email"] == ACCOUNT


async def test_an_application_gets_a_token_of_its_own(browser: Browser) -> None:
    client = BackendApplicationClient(PRIVATE.id)
    url, headers, body = client.prepare_token_request(
        browser.provider.token_url,
        client_secret=PRIVATE.secret,
        include_client_id=True,
        scope="https://mail.example.test/.default",
    )
    async with browser.session.post(url, headers=headers, data=body) as reply:
        tokens = client.parse_request_body_response(await reply.text())
    claims = browser.provider.verify(tokens["access_token"])
    assert claims["appid"] == PRIVATE.id
    assert "IMAP.AccessAsApp" in claims["roles"]
    assert "email" not in claims
    assert "refresh_token" not in tokens


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": "w" * 64},
        {"code_verifier": ""},
        {"redirect_uri": "http://localhost:8801/?keep=1"},
    ],
)
async def test_a_code_is_bound_to_all_that_it_was_asked_with(browser: Browser, changes: dict[str, str]) -> None:
    code = await browser.code()
    status, reply = await browser.redeem(code, **changes)
    assert (status, reply["error"]) == (400, "invalid_grant")
    assert (await browser.redeem(code))[0] == 200


async def test_a_code_belongs_to_its_client(browser: Browser) -> None:
    assert (await browser.redeem("unheard-of"))[1]["error"] == "invalid_grant"
    code = await browser.code(PUBLIC)
    assert (await browser.redeem(code))[1]["error"] == "invalid_grant"


async def test_a_code_ends_after_a_minute(browser: Browser) -> None:
    code = await browser.code()
    browser.clock.seconds += 61
    assert (await browser.redeem(code))[1]["error"] == "invalid_grant"


async def test_a_replayed_code_gives_nothing_and_revokes_what_it_gave(browser: Browser) -> None:
    code = await browser.code()
    tokens = (await browser.redeem(code))[1]
    assert (await browser.redeem(code))[1]["error"] == "invalid_grant"
    assert (await browser.refresh(tokens["refresh_token"]))[1]["error"] == "invalid_grant"


async def test_reuse_of_a_refresh_token_revokes_its_family_and_no_other(browser: Browser) -> None:
    first = (await browser.redeem(await browser.code()))[1]["refresh_token"]
    other = (await browser.redeem(await browser.code()))[1]["refresh_token"]
    second = (await browser.refresh(first))[1]["refresh_token"]
    third = (await browser.refresh(second))[1]["refresh_token"]
    assert browser.provider.revoked_families == 0
    assert (await browser.refresh(second)) == (
        400,
        {"error": "invalid_grant", "error_description": "the refresh token was revoked"},
    )
    assert (await browser.refresh(third))[1]["error"] == "invalid_grant"
    assert browser.provider.revoked_families == 1
    assert (await browser.refresh(other))[0] == 200


async def test_within_the_grace_an_old_refresh_token_still_works(authority: Authority) -> None:
    async with browsing(authority, grace_s=30) as browser:
        first = (await browser.redeem(await browser.code()))[1]["refresh_token"]
        assert (await browser.refresh(first))[0] == 200
        browser.clock.seconds += 29
        assert (await browser.refresh(first))[0] == 200
        browser.clock.seconds += 1
        assert (await browser.refresh(first))[1]["error"] == "invalid_grant"


async def test_without_rotation_the_refresh_token_stays(authority: Authority) -> None:
    async with browsing(authority, rotate=False) as browser:
        token = (await browser.redeem(await browser.code()))[1]["refresh_token"]
        assert (await browser.refresh(token))[1]["refresh_token"] == token
        assert (await browser.refresh(token))[0] == 200


async def test_revoked_refresh_tokens_are_refused(browser: Browser) -> None:
    token = (await browser.redeem(await browser.code()))[1]["refresh_token"]
    browser.provider.revoke_refresh_tokens()
    assert (await browser.refresh(token))[1]["error"] == "invalid_grant"


async def test_a_refresh_token_belongs_to_its_client(browser: Browser) -> None:
    token = (await browser.redeem(await browser.code()))[1]["refresh_token"]
    assert (await browser.refresh(token, PUBLIC))[1]["error"] == "invalid_grant"
    assert (await browser.refresh(token))[0] == 200


async def test_access_tokens_end(browser: Browser) -> None:
    token = browser.provider.access_token(ACCOUNT, expires_in=60)
    browser.clock.seconds += 59
    browser.provider.verify(token)
    browser.clock.seconds += 1
    with pytest.raises(TokenInvalid, match="out of its time"):
        browser.provider.verify(token)


async def test_revoked_and_forged_access_tokens_are_refused(browser: Browser) -> None:
    token = browser.provider.access_token(ACCOUNT)
    header, payload, signature = token.split(".")
    unsigned = jwt.encode(jwt.decode(token, options={"verify_signature": False}), "", algorithm="none")
    for forged in (unsigned, f"{header}.{payload}.{signature[::-1]}", "abc", ""):
        with pytest.raises(TokenInvalid, match="not genuine"):
            browser.provider.verify(forged)
    browser.provider.verify(token)
    browser.provider.revoke_access_tokens()
    with pytest.raises(TokenInvalid, match="revoked"):
        browser.provider.verify(token)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
    ],
)
async def test_pkce_with_s256_is_required(browser: Browser, changes: dict[str, Any], error: str) -> None:
    back = await browser.answer(browser.url(**changes))
    assert (back["error"], back["state"], back["iss"]) == (error, "st&te", browser.provider.url)


async def test_a_parameter_given_twice_is_refused(browser: Browser) -> None:
    assert (await browser.answer(browser.url() + "&scope=more"))["error"] == "invalid_request"


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": "http://localhost:8801"},
        {"redirect_uri": "http://localhost:8801/x"},
        {"redirect_uri": "https://evil.example.test/"},
        {"redirect_uri": None},
        {"client_id": "<script>"},
    ],
)
async def test_nobody_is_redirected_while_client_or_address_are_in_doubt(
    browser: Browser, changes: dict[str, Any]
) -> None:
    async with browser.session.get(browser.url(**changes), allow_redirects=False) as reply:
        assert reply.status == 400
        assert "<script>" not in await reply.text()


async def test_denial_comes_back_as_access_denied(authority: Authority) -> None:
    async with browsing(authority, deny=True) as browser:
        back = await browser.answer(browser.url())
    assert (back["error"], back["state"]) == ("access_denied", "st&te")
    assert "code" not in back


async def test_a_person_sees_who_asks_for_what_and_approves(authority: Authority) -> None:
    async with browsing(authority, auto_approve=False) as browser:
        url = browser.url(login_hint="bert&co@example.test")
        async with browser.session.get(url) as reply:
            text = await reply.text()
        assert "bert&amp;co@example.test" in text
        assert SCOPE in text
        assert browser.provider.authorizations == []
        assert (await browser.answer(url, {"decision": "no"}))["error"] == "access_denied"
        code = (await browser.answer(url, {"decision": "approve"}))["code"]
        claims = browser.provider.verify((await browser.redeem(code))[1]["access_token"])
    assert claims["email"] == "bert&co@example.test"


async def test_the_redirect_uris_own_query_is_kept(browser: Browser) -> None:
    url = browser.url(redirect_uri="http://localhost:8801/?keep=1")
    async with browser.session.get(url, allow_redirects=False) as reply:
        assert reply.headers["Location"].startswith("http://localhost:8801/?keep=1&code=")


CLIENT_CREDENTIALS = {"grant_type": "client_credentials"}


@pytest.mark.parametrize(
    ("form", "authorization", "outcome"),
    [
        ({"client_id": "private", "client_secret": "s3cret:%"}, None, (200, None)),
        # name and secret are form-encoded before they are joined: RFC 6749 section 2.3.1
        ({}, ("private", "s3cret%3A%25"), (200, None)),
        ({}, ("private", "wrong"), (401, "invalid_client")),
        ({"client_id": "private", "client_secret": "wrong"}, None, (401, "invalid_client")),
        ({"client_id": "private"}, None, (401, "invalid_client")),
        ({"client_id": "nobody", "client_secret": "x"}, None, (401, "invalid_client")),
        ({"client_secret": "s3cret:%"}, ("private", "s3cret%3A%25"), (400, "invalid_request")),
        ({"client_id": "public"}, None, (400, "unauthorized_client")),
        ({"client_id": "public", "client_secret": "x"}, None, (401, "invalid_client")),
    ],
)
async def test_clients_prove_who_they_are(
    browser: Browser,
    form: dict[str, str],
    authorization: tuple[str, str] | None,
    outcome: tuple[int, str | None],
) -> None:
    headers = {"Authorization": aiohttp.encode_basic_auth(*authorization)} if authorization else {}
    status, reply = await browser.ask_bare({**CLIENT_CREDENTIALS, **form}, **headers)
    assert (status, reply.get("error")) == outcome


@pytest.mark.parametrize("header", ["Bearer abc", "Basic !!!", "Basic", "Basic YWJj"])
async def test_a_broken_authorization_header_is_refused(browser: Browser, header: str) -> None:
    status, reply = await browser.ask_bare(CLIENT_CREDENTIALS, Authorization=header)
    assert (status, reply["error"]) == (401, "invalid_client")


async def test_other_grants_are_not_offered(browser: Browser) -> None:
    status, reply = await browser.ask({"grant_type": "password", "username": "a", "password": "b"})
    assert (status, reply["error"]) == (400, "unsupported_grant_type")


async def test_oauthlib_understands_a_refusal(browser: Browser) -> None:
    client = WebApplicationClient(PRIVATE.id)
    form = {"grant_type": "refresh_token", "refresh_token": "unheard-of", "client_id": PUBLIC.id}
    async with browser.session.post(browser.provider.token_url, data=form) as reply:
        with pytest.raises(InvalidGrantError, match="not known to this client"):
            client.parse_request_body_response(await reply.text())
