"""Bad credentials and bad answers of Google's: one clear error each, and nothing secret in any text."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from emailproxy.errors import AccountUnusable, LoginRefused, ProviderRefused, ProviderUnavailable
from tests.fakes.google import IAM_HOST, STS_HOST, TOKEN_HOST
from tests.fakes.provider import UNUSABLE, FakeProvider, Fault, Reply, refusal, throttled, unavailable
from tests.fakes.tunnel import tunnel
from tests.oauth.google_world import IMPERSONATION_URL, GoogleWorld, google_world
from tests.oauth.world import ADA

WORKLOAD = "principal://iam.googleapis.com/projects/123/subject/ci"
SUBJECT_TOKEN = "canary-subject-token"


@pytest.fixture
async def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[GoogleWorld]:
    caplog.set_level(logging.DEBUG)
    async with google_world(tmp_path, monkeypatch) as world:
        yield world
    assert not [found for record in caplog.get_records("call") if (found := secrets_in(record.getMessage()))]


def secrets_in(text: str) -> list[str]:
    """Keys, assertions, tokens and what tests call a canary."""
    return re.findall(r"canary\S*|eyJ[\w.-]{40,}|ya29\S*|BEGIN [A-Z ]*PRIVATE KEY|MII[A-Za-z0-9+/]{20,}", text)


async def failure(world: GoogleWorld, *configured: Any, **changes: Any) -> LoginRefused:
    """The error that an account ends in, checked for what no error may say."""
    with pytest.raises(LoginRefused) as caught:
        await world.flow.acquire(world.configured(*configured, **changes), None)
    error: BaseException | None = caught.value
    while error is not None:  # a traceback in the log shows what an error hides no further than here
        assert not secrets_in(str(error)), error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert "\n" not in str(caught.value)
    return caught.value


OAUTH_CLIENT = {"installed": {"client_id": "id", "client_secret": "canary-client-secret", "redirect_uris": []}}
PEM = (
    "-----BEGIN PRIVATE KEY-----\nMIICdgIBADANBgkqhkiG9w0BAQEFAASCAmAwggJcAgEAAoGBAcanary\n-----END PRIVATE KEY-----\n"
)

BAD_CONTENT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no JSON": (lambda key: "canary: not JSON", "is not a JSON key"),
    "no object": (lambda key: ["canary"], "is not a JSON key"),
    "deep JSON": (lambda key: "[" * 60_000, "is not a JSON key"),
    "an OAuth client": (lambda key: OAUTH_CLIENT, "is the secret of an OAuth client, not the key of a service account"),
    "an OAuth web client": (lambda key: {"web": OAUTH_CLIENT["installed"]}, "oauth2_flow = authorization_code"),
    "no type": (lambda key: {**key, "type": None}, "has no type"),
    "another type": (lambda key: {**key, "type": "gdch_service_account"}, "has the type 'gdch_service_account'"),
    "no address": (lambda key: {**key, "client_email": ""}, "lacks client_email"),
    "no key": (lambda key: {name: key[name] for name in ("type", "client_email")}, "lacks private_key"),
    "a broken key": (lambda key: {**key, "private_key": PEM}, "holds a private_key that cannot be read"),
    "a key cut short": (lambda key: {**key, "private_key": key["private_key"][:800]}, "holds a private_key that"),
    "a key that is no text": (lambda key: {**key, "private_key": {"canary": 1}}, "lacks private_key"),
    "an endpoint that is no text": (lambda key: {**key, "token_uri": 5}, "is no complete service_account file"),
    "a plain endpoint": (lambda key: {**key, "token_uri": "http://evil.test/"}, "must not go to http://evil.test/"),
    "federation, half": (lambda key: {"type": "external_account", "audience": "x"}, "lacks subject_token_type"),
    "a login, no service account": (
        lambda key: {"type": "authorized_user", "client_id": "a", "client_secret": "canary", "refresh_token": "canary"},
        "names no service account; set service_account_email",
    ),
    "an impersonation of nobody": (
        lambda key: {
            "type": "impersonated_service_account",
            "source_credentials": {"type": "gdch_service_account"},
            "service_account_impersonation_url": IMPERSONATION_URL.format("a@b.iam.gserviceaccount.com"),
        },
        "source_credentials in the file",
    ),
}


@pytest.mark.parametrize(("content", "said"), BAD_CONTENT.values(), ids=BAD_CONTENT)
async def test_a_file_that_is_no_key(
    world: GoogleWorld, content: Callable[[dict[str, Any]], object], said: str
) -> None:
    path = world.file(content(dict(world.account.key_json)))
    error = await failure(world, path)
    assert isinstance(error, AccountUnusable)
    assert said in str(error)
    assert ADA in str(error)
    assert path in str(error)
    assert world.google.asked == []


async def test_a_file_that_is_not_there(world: GoogleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(world.folder / "absent.json")
    assert f"the key file of {ADA} cannot be read from {path} (No such file" in str(await failure(world, path))
    assert "cannot be read" in str(await failure(world, str(world.folder)))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
    error = await failure(world, None)
    assert isinstance(error, AccountUnusable)
    assert f"the application default credentials of {ADA} cannot be read from {path}" in str(error)


async def test_an_inline_value_that_is_no_key(world: GoogleWorld) -> None:
    error = await failure(world, '{"type": "canary"', client_id="key")
    assert str(error).startswith(f"{ADA}: client_secret is not a JSON key of a service account; create one")


async def test_a_path_or_a_key(world: GoogleWorld) -> None:
    error = await failure(world, "canary-secret", client_id="123.apps.googleusercontent.com")
    assert str(error) == f"{ADA}: client_id is neither file nor key; say what client_secret is"


async def test_nothing_configured_and_no_machine_that_vouches(world: GoogleWorld) -> None:
    error = await failure(world, None)
    assert isinstance(error, AccountUnusable)
    assert "client_secret is not set, and there are no application default credentials" in str(error)


EMPTY = str(Path(__file__).with_name("__init__.py"))
"""A package's own file, which says nothing."""

FEDERATION: dict[str, tuple[dict[str, Any], str]] = {
    "a source of no kind": ({"credential_source": {"fil": "x"}}, "is no complete external_account file"),
    "two sources": ({"credential_source": {"file": "x", "url": "y"}}, "is no complete external_account file"),
    "a source that is no object": ({"credential_source": "canary"}, "lacks credential_source"),
    "a program": ({"credential_source": {"executable": {"command": "x"}}}, "use token_command"),
    "an absent token file": ({"credential_source": {"file": "/nowhere/token"}}, "File '/nowhere/token' was not found"),
    "a folder": ({"credential_source": {"file": "/"}}, "names /, which is no file"),
    "an empty file": ({"credential_source": {"file": EMPTY}}, "Missing subject_token"),
    "a device": ({"credential_source": {"file": "/dev/zero"}}, "names /dev/zero, which is no file"),
    "a plain endpoint": ({"token_url": "http://evil.test/"}, "must not go to http://evil.test/"),
}


@pytest.mark.parametrize(("changes", "said"), FEDERATION.values(), ids=FEDERATION)
async def test_a_federation_that_cannot_work(world: GoogleWorld, changes: dict[str, Any], said: str) -> None:
    content = {**world.federation({"file": world.file(SUBJECT_TOKEN, "subject")}), **changes}
    error = await failure(world, world.file(content), service_account_email=world.account.email)
    assert isinstance(error, AccountUnusable)
    assert said in str(error)
    assert world.google.asked == []


async def test_a_stranger_s_subject_token(world: GoogleWorld) -> None:
    path = world.file(world.federation({"file": world.file(SUBJECT_TOKEN, "subject")}))
    error = await failure(world, path, service_account_email=world.account.email)
    assert isinstance(error, ProviderRefused)
    assert error.code == "invalid_grant"
    assert STS_HOST in str(error)
    assert "attribute condition" in str(error)
    assert "sign in" not in str(error)


async def test_a_workload_that_may_not_sign(world: GoogleWorld) -> None:
    world.google.subject_tokens[SUBJECT_TOKEN] = WORKLOAD
    path = world.file(world.federation({"file": world.file(SUBJECT_TOKEN, "subject")}))
    error = await failure(world, path, service_account_email=world.account.email)
    assert isinstance(error, ProviderRefused)
    assert error.code == "PERMISSION_DENIED"
    assert "iam.serviceAccounts.signJwt" in str(error)
    assert IAM_HOST in str(error)


async def test_google_s_refusals_arrive_in_its_words(world: GoogleWorld) -> None:
    key = world.account.key_json
    stranger = world.google.service_account("stranger").key_json
    del world.google.accounts["stranger@project.iam.gserviceaccount.com"]
    cases: list[tuple[dict[str, str], dict[str, Any], str, str]] = [
        (key, {"scope": "https://www.googleapis.com/auth/drive"}, "unauthorized_client", "using this method"),
        (key, {"token_owner": "nobody@example.org"}, "invalid_grant", "Invalid email or User ID"),
        (stranger, {}, "invalid_grant", "account not found"),
        ({**key, "private_key": stranger["private_key"]}, {}, "invalid_grant", "Invalid JWT Signature"),
        ({**key, "private_key_id": "revoked"}, {}, "invalid_grant", "Invalid JWT Signature"),
    ]
    for content, changes, code, said in cases:
        error = await failure(world, world.file(content), **changes)
        assert isinstance(error, ProviderRefused)
        assert error.code == code
        assert said in str(error)


async def test_a_clock_that_is_wrong(world: GoogleWorld) -> None:
    really = world.google._now
    world.google._now = lambda: really() - 7200
    error = await failure(world, world.file(world.account.key_json))
    assert "reasonable timeframe" in str(error)


@pytest.mark.parametrize("fault", UNUSABLE.values(), ids=UNUSABLE)
async def test_an_answer_that_makes_no_sense(world: GoogleWorld, fault: Fault) -> None:
    """What may pass is asked for again, in our time and not in google-auth's; nothing follows a redirect."""
    world.google.next(*[fault] * 4)
    error = await failure(world, world.file(world.account.key_json))
    assert isinstance(error, ProviderUnavailable)
    assert TOKEN_HOST in str(error)
    assert len(world.google.asked) <= 4


@pytest.mark.parametrize("host", [STS_HOST, IAM_HOST])
@pytest.mark.parametrize("fault", ["an HTML page", "10 MiB", "garbage", "deep JSON", "no JSON object", "a redirect"])
async def test_an_answer_on_the_way_that_makes_no_sense(world: GoogleWorld, host: str, fault: str) -> None:
    world.google.subject_tokens[SUBJECT_TOKEN] = WORKLOAD
    path = world.file(world.federation({"file": world.file(SUBJECT_TOKEN, "subject")}))
    world.google.next(UNUSABLE[fault], host=host)
    error = await failure(world, path, service_account_email=world.account.email)
    assert isinstance(error, ProviderUnavailable)
    assert host in str(error)


@pytest.mark.parametrize("body", ["{}", '{"signedJwt": 5}', '{"signedJwt": {"a": 1}}'])
async def test_a_signature_that_is_none(world: GoogleWorld, body: str) -> None:
    world.google.subject_tokens[SUBJECT_TOKEN] = WORKLOAD
    path = world.file(world.federation({"file": world.file(SUBJECT_TOKEN, "subject")}))
    world.google.next(Reply(200, body), host=IAM_HOST)
    error = await failure(world, path, service_account_email=world.account.email)
    assert isinstance(error, ProviderUnavailable)


async def test_a_fault_that_passes(world: GoogleWorld) -> None:
    world.google.next(unavailable(), unavailable())
    tokens = await world.flow.acquire(world.configured(world.file(world.account.key_json)), None)
    assert world.mailbox(tokens.access_token) == ADA
    assert [asked.status for asked in world.google.asked] == [503, 503, 200]
    assert sum(world.turned.slept) < 5


async def test_google_asks_us_to_wait(world: GoogleWorld) -> None:
    world.google.next(throttled("60"))
    path = world.file(world.account.key_json)
    assert (await failure(world, path)).__class__ is ProviderUnavailable
    assert "try again in 60 s" in str(await failure(world, path))
    assert len(world.google.asked) == 1
    world.turned.turn(61)
    await world.flow.acquire(world.configured(path), None)


async def test_a_provider_that_repeats_the_assertion(world: GoogleWorld) -> None:
    """`failure` looks for it."""

    class Echo:
        async def answer(self, provider: FakeProvider, request: web.Request) -> web.StreamResponse:
            assertion = str((await request.post())["assertion"])
            return await refusal("invalid_grant", f"Bad credential {assertion}").answer(provider, request)

    world.google.next(Echo())
    error = await failure(world, world.file(world.account.key_json))
    assert "Bad credential ***" in str(error)


async def test_an_api_that_repeats_the_access_token(world: GoogleWorld) -> None:
    class Echo:
        async def answer(self, provider: FakeProvider, request: web.Request) -> web.StreamResponse:
            said = f"Bad credential {request.headers['Authorization']}"
            body = {"error": {"code": 401, "message": said, "status": "UNAUTHENTICATED"}}
            return web.json_response(body, status=401)

    world.google.subject_tokens[SUBJECT_TOKEN] = WORKLOAD
    path = world.file(world.federation({"file": world.file(SUBJECT_TOKEN, "subject")}))
    world.google.next(Echo(), host=IAM_HOST)
    error = await failure(world, path, service_account_email=world.account.email)
    assert "Bad credential Bearer ***" in str(error)


async def test_google_cannot_be_reached(world: GoogleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    async with tunnel({}) as nowhere:
        monkeypatch.setenv("https_proxy", nowhere)
        error = await failure(world, world.file(world.account.key_json))
    assert isinstance(error, ProviderUnavailable)
    assert f"the provider at {TOKEN_HOST} cannot be reached" in str(error)


async def test_google_is_somebody_else(world: GoogleWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with google_world(tmp_path / "other", monkeypatch):
        error = await failure(world, world.file(world.account.key_json))
    assert isinstance(error, ProviderUnavailable)
    assert f"the provider at {TOKEN_HOST} cannot be trusted" in str(error)


async def test_the_key_is_in_no_repr(world: GoogleWorld) -> None:
    from emailproxy.oauth.google.keys import parsed

    account = world.configured(json.dumps(world.account.key_json), client_id="key")
    source = parsed(account, "client_secret", json.dumps(world.account.key_json))
    assert not secrets_in(repr(source) + repr(account))
