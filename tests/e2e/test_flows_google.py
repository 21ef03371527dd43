"""Google's service accounts through a mail login, by google-auth: with a key, and without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness.realm import Realm, Settings, realm
from tests.e2e.harness.world import USER
from tests.fakes.google import AUDIENCE, MAIL_SCOPE, FakeGoogle, ServiceAccount
from tests.fakes.provider import altered

pytestmark = pytest.mark.system("dovecot")

SECRET, TOKEN = "canary-of-gcloud", "canary-refresh-token"
SUBJECT_TOKEN = "canary-subject-token"
Source = Callable[[Realm, FakeGoogle, ServiceAccount], Settings]


def key_file(ours: Realm, _: FakeGoogle, account: ServiceAccount) -> Settings:
    return {"client_id": "file", "client_secret": written(ours.folder / "key.json", account.key_json)}


def key_itself(_: Realm, __: FakeGoogle, account: ServiceAccount) -> Settings:
    lines = json.dumps(account.key_json, indent=2).splitlines()
    return {"client_id": "key", "client_secret": "\n  ".join(lines)}


def gcloud(ours: Realm, google: FakeGoogle, account: ServiceAccount) -> Settings:
    """Impersonation by whoever ran ``gcloud auth application-default login``: no key at all."""
    google.refresh_tokens["gcloud", SECRET, TOKEN] = "user:ann"
    account.token_creators = {"user:ann"}
    login = {"type": "authorized_user", "client_id": "gcloud", "client_secret": SECRET, "refresh_token": TOKEN}
    written(ours.folder / "gcloud" / "application_default_credentials.json", login)
    ours.env["CLOUDSDK_CONFIG"] = str(ours.folder / "gcloud")
    return {"service_account_email": account.email}


def workload_identity(ours: Realm, google: FakeGoogle, account: ServiceAccount) -> Settings:
    """Federation: somebody else's token in a file, exchanged (RFC 8693)."""
    google.subject_tokens[SUBJECT_TOKEN] = "principal://ci"
    account.token_creators = {"principal://ci"}
    subject = ours.folder / "subject"
    subject.write_text(SUBJECT_TOKEN)
    federation = {
        "type": "external_account",
        "audience": AUDIENCE,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": {"file": str(subject)},
    }
    ours.env["GOOGLE_APPLICATION_CREDENTIALS"] = str(written(ours.folder / "federation.json", federation))
    return {"service_account_email": account.email}


def written(path: Path, content: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.touch(0o600)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        (key_file, ["token"]),
        (key_itself, ["token"]),
        (gcloud, ["token", "signJwt", "token"]),
        (workload_identity, ["token", "signJwt", "token"]),
    ],
)
async def test_a_service_account_opens_a_mailbox_of_its_domain(
    tmp_path: Path, source: Source, asked: list[str]
) -> None:
    async with realm(tmp_path) as ours, ours.google() as google:
        account = google.service_account()
        ours.canaries |= {SECRET, TOKEN, SUBJECT_TOKEN, account.key_json["private_key"].splitlines()[1]}
        section: Settings = {"oauth2_flow": "service_account", "oauth2_scope": MAIL_SCOPE}
        async with ours.proxy(section | source(ours, google, account)) as proxy:
            await ours.log_in()
            assert [one.path.rpartition("/")[2].rpartition(":")[2] for one in google.asked] == asked
            await proxy.printed(f"account {USER} is set up")
            assert "[AUTHENTICATIONFAILED]" in await ours.refusal(password="not that of the first login")
        assertion = google.asked[-1].claims
        assert (assertion["iss"], assertion["sub"], assertion["scope"]) == (account.email, USER, MAIL_SCOPE)


async def test_a_service_account_that_may_not_act_for_the_domain(tmp_path: Path) -> None:
    async with realm(tmp_path) as ours, ours.google() as google:
        account = google.service_account("other", "https://www.googleapis.com/auth/drive")
        section: Settings = {"oauth2_flow": "service_account", "oauth2_scope": MAIL_SCOPE}
        async with ours.proxy(section | key_file(ours, google, account)):
            told = await ours.refusal()
            assert "[CONTACTADMIN]" in told
            assert "domain-wide delegation" in told
            account.scopes.add(MAIL_SCOPE)
            await ours.log_in()


async def test_a_key_that_is_renewed_between_two_logins(tmp_path: Path) -> None:
    async with realm(tmp_path) as ours, ours.google() as google:
        old, new = google.service_account("old"), google.service_account("new")
        section: Settings = {"oauth2_flow": "service_account", "oauth2_scope": MAIL_SCOPE}
        google.next(altered(expires_in=1))
        async with ours.proxy(section | key_file(ours, google, old)):
            await ours.log_in_until(lambda: len(google.asked) == 1)
            key_file(ours, google, new)
            await ours.log_in_until(lambda: len(google.asked) > 1)
        assert [one.claims["iss"] for one in google.asked] == [old.email, new.email]
