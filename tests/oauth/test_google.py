"""Service accounts at Google, with google-auth for real: what arrives, and what comes of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from emailproxy.config.sources import FromEnvironment, FromFile
from tests.fakes.google import IDP_HOST, MAIL_SCOPE, TOKEN_URL
from tests.oauth.google_world import IMPERSONATION_URL, GoogleWorld, google_world
from tests.oauth.world import ADA

WORKLOAD = "principal://iam.googleapis.com/projects/123/subject/ci"
SUBJECT_TOKEN = "canary-subject-token"


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GoogleWorld]:
    async with google_world(tmp_path, monkeypatch) as world:
        yield world


def federated(world: GoogleWorld) -> GoogleWorld:
    """A workload that may have IAM sign for the service account."""
    world.google.subject_tokens[SUBJECT_TOKEN] = WORKLOAD
    world.account.token_creators = {WORKLOAD, world.account.email}
    return world


async def test_a_key_file_opens_the_mailbox(world: GoogleWorld) -> None:
    tokens = await world.flow.acquire(world.configured(world.file(world.account.key_json)), None)

    assert world.mailbox(tokens.access_token) == ADA
    assert tokens.expires_at_s == world.turned.wall + 3599
    assert tokens.refresh_token is None
    (asked,) = world.google.asked
    assert {name: asked.claims[name] for name in ("iss", "sub", "aud", "scope")} == {
        "iss": world.account.email,
        "sub": ADA,
        "aud": TOKEN_URL,
        "scope": MAIL_SCOPE,
    }


async def test_it_is_asked_anew_when_a_token_ends(world: GoogleWorld) -> None:
    account = world.configured(world.file(world.account.key_json))
    first = await world.flow.acquire(account, None)
    second = await world.flow.refresh(account, first)
    assert second.access_token != first.access_token
    assert world.paths() == ["token", "token"]


async def test_the_key_may_be_renewed_meanwhile(world: GoogleWorld) -> None:
    path = world.file("not a key yet")
    account = world.configured(path)
    world.file(world.account.key_json)
    assert world.mailbox((await world.flow.acquire(account, None)).access_token) == ADA


async def test_the_json_itself(world: GoogleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(world.account.key_json)
    monkeypatch.setenv("GOOGLE_KEY", text)
    for source in (text, FromEnvironment("GOOGLE_KEY"), FromFile(Path(world.file(text)))):
        tokens = await world.flow.acquire(world.configured(source, client_id="key"), None)
        assert world.mailbox(tokens.access_token) == ADA


async def test_the_path_from_elsewhere(world: GoogleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever keeps the path elsewhere names it by a source; a file is the key itself."""
    path = world.file(world.account.key_json)
    monkeypatch.setenv("GOOGLE_KEY_PATH", path)
    for source in (FromEnvironment("GOOGLE_KEY_PATH"), FromFile(Path(path))):
        tokens = await world.flow.acquire(world.configured(source), None)
        assert world.mailbox(tokens.access_token) == ADA


async def test_the_token_owner_is_whose_mail_it_is(world: GoogleWorld) -> None:
    world.google.users.add("shared@example.org")
    key = world.file(world.account.key_json)
    tokens = await world.flow.acquire(world.configured(key, token_owner="shared@example.org"), None)
    assert world.mailbox(tokens.access_token) == "shared@example.org"


async def test_the_configured_scope(world: GoogleWorld) -> None:
    world.account.scopes.add("https://www.googleapis.com/auth/gmail.imap")
    scope = f"{MAIL_SCOPE} https://www.googleapis.com/auth/gmail.imap"
    await world.flow.acquire(world.configured(world.file(world.account.key_json), scope=scope), None)
    assert world.google.asked[0].claims["scope"] == scope


async def test_a_key_that_acts_as_another_service_account(world: GoogleWorld) -> None:
    other = world.google.service_account("other", "https://www.googleapis.com/auth/nothing")
    world.account.token_creators = {other.email}
    key = world.file(other.key_json)
    tokens = await world.flow.acquire(world.configured(key, service_account_email=world.account.email), None)
    assert world.mailbox(tokens.access_token) == ADA
    assert world.paths() == ["token", "signJwt", "token"]
    assert world.google.asked[-1].claims["iss"] == world.account.email


async def test_federation_from_a_file(world: GoogleWorld) -> None:
    """The federated identity itself asks IAM to sign; its subject token is read anew every time."""
    federated(world)
    source = world.file("old", "subject")
    path = world.file(world.federation({"file": source}))
    account = world.configured(path, service_account_email=world.account.email)
    world.file(SUBJECT_TOKEN, "subject")

    assert world.mailbox((await world.flow.acquire(account, None)).access_token) == ADA
    assert world.paths() == ["token", "signJwt", "token"]
    exchange, signed, granted = world.google.asked
    assert exchange.form["subject_token"] == SUBJECT_TOKEN
    assert json.loads(signed.form["payload"])["sub"] == ADA
    assert granted.claims["iss"] == world.account.email


async def test_federation_by_an_impersonation_url(world: GoogleWorld) -> None:
    """The file's own wish: the service account is impersonated first, and signs for itself then."""
    federated(world)
    content = world.federation(
        {"file": world.file(json.dumps({"jwt": SUBJECT_TOKEN}), "subject"), "format": JSON_FORMAT},
        service_account_impersonation_url=IMPERSONATION_URL.format(world.account.email),
    )
    tokens = await world.flow.acquire(world.configured(json.dumps(content), client_id="key"), None)
    assert world.mailbox(tokens.access_token) == ADA
    assert world.paths() == ["token", "generateAccessToken", "signJwt", "token"]


JSON_FORMAT = {"type": "json", "subject_token_field_name": "jwt"}


async def test_federation_from_a_url(world: GoogleWorld) -> None:
    federated(world)
    source = {
        "url": f"https://{IDP_HOST}/token",
        "format": {"type": "json", "subject_token_field_name": "value"},
    }
    path = world.file(world.federation(source))
    account = world.configured(path, service_account_email=world.account.email)
    assert world.mailbox((await world.flow.acquire(account, None)).access_token) == ADA


async def test_federation_from_aws(world: GoogleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    federated(world)
    world.google.subject_tokens["AKIDEXAMPLE"] = WORKLOAD
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-aws-secret")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    source = {
        "environment_id": "aws1",
        "regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
    }
    content = world.federation(source, subject_token_type="urn:ietf:params:aws:token-type:aws4_request")
    account = world.configured(world.file(content), service_account_email=world.account.email)
    assert world.mailbox((await world.flow.acquire(account, None)).access_token) == ADA


def gcloud_login(world: GoogleWorld) -> dict[str, str]:
    """What ``gcloud auth application-default login`` writes."""
    world.google.refresh_tokens["client", "canary-client-secret", "canary-refresh-token"] = "user:ada"
    world.account.token_creators = {"user:ada"}
    return {
        "type": "authorized_user",
        "client_id": "client",
        "client_secret": "canary-client-secret",
        "refresh_token": "canary-refresh-token",
    }


async def test_a_person_s_login_that_acts_as_the_service_account(world: GoogleWorld) -> None:
    content = {
        "type": "impersonated_service_account",
        "source_credentials": gcloud_login(world),
        "service_account_impersonation_url": IMPERSONATION_URL.format(world.account.email),
        "delegates": [],
    }
    tokens = await world.flow.acquire(world.configured(world.file(content)), None)
    assert world.mailbox(tokens.access_token) == ADA
    assert world.paths() == ["token", "signJwt", "token"]


async def test_application_default_credentials(world: GoogleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", world.file(world.account.key_json))
    tokens = await world.flow.acquire(world.configured(None), None)
    assert world.mailbox(tokens.access_token) == ADA


async def test_gcloud_s_own_credentials(world: GoogleWorld) -> None:
    (world.folder / "gcloud").mkdir()
    world.file(gcloud_login(world), "gcloud/application_default_credentials.json")
    account = world.configured(None, service_account_email=world.account.email)
    assert world.mailbox((await world.flow.acquire(account, None)).access_token) == ADA


async def test_a_token_url_elsewhere_stands_in_place_of_the_key_s(world: GoogleWorld) -> None:
    """Templates name Google's own endpoint; only another one was set on purpose."""
    key = {**world.account.key_json, "token_uri": "https://oauth2.private.test/token"}
    world.google.users.add("b@example.org")
    reached: list[str] = []

    async def stranger(request: web.Request) -> web.Response:
        reached.append(str((await request.post())["grant_type"]))
        return web.json_response({"access_token": "from elsewhere".replace(" ", "-"), "expires_in": 60})

    app = web.Application()
    app.router.add_post("/token", stranger)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
        tokens = await world.flow.acquire(world.configured(world.file(key), token_url=url), None)
    finally:
        await runner.cleanup()
    assert tokens.access_token.reveal() == "from-elsewhere"
    assert reached == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    assert world.google.asked == []


METADATA = """
import asyncio, sys
from pathlib import Path
from emailproxy.config.model import Account, FlowName
from emailproxy.oauth.attempts import Attempts
from emailproxy.oauth.blocking import Blocking
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.google import grants
from emailproxy.oauth.secrets import Secrets

account = Account(name=sys.argv[2], section="@", flow=FlowName.SERVICE_ACCOUNT, service_account_email=sys.argv[3])
clock = Clock()
flow = grants(Blocking(ca_file=Path(sys.argv[1])), Secrets(Commands()), Attempts(clock), clock=clock)[account.flow]
print(asyncio.run(flow.acquire(account, None)).access_token.reveal())
"""


async def test_the_machine_s_own_service_account(world: GoogleWorld) -> None:
    """google-auth looks for the metadata server's address once, when it is imported: so a process of its own."""
    world.account.token_creators = {"machine"}
    bearer = world.google._bearer("machine")

    async def metadata(request: web.Request) -> web.Response:
        assert request.headers["Metadata-Flavor"] == "Google"
        answers: dict[str, object] = {
            "/computeMetadata/v1/instance/service-accounts/default/": {"email": "machine@x", "scopes": []},
            "/computeMetadata/v1/instance/service-accounts/default/token": {"access_token": bearer, "expires_in": 99},
        }
        answer = answers.get(request.path, "project")
        reply = web.json_response(answer) if isinstance(answer, dict) else web.Response(text=str(answer))
        reply.headers["Metadata-Flavor"] = "Google"
        return reply

    app = web.Application()
    app.router.add_get("/{path:.*}", metadata)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", METADATA, str(world.folder / "ca.pem"), ADA, world.account.email),
            env={**os.environ, "GCE_METADATA_HOST": address, "GCE_METADATA_IP": address},
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await child.communicate()
    finally:
        await runner.cleanup()
    assert child.returncode == 0
    assert world.google.verify(printed.decode().strip())["email"] == ADA


def test_google_auth_is_imported_on_first_use() -> None:
    heavy = "[m for m in sys.modules if m.split('.')[0] in {'google', 'requests'}]"
    code = f"import sys, emailproxy.oauth.google; print({heavy})"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
