"""A Google of our own behind a tunnel, and the flow that asks it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emailproxy.config.model import Account, FlowName, ProviderName
from emailproxy.config.sources import SecretSource
from emailproxy.demo.certificates import Authority
from emailproxy.oauth.attempts import Attempts
from emailproxy.oauth.blocking import Blocking
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.flow import Flow
from emailproxy.oauth.google import grants
from emailproxy.oauth.secrets import Secrets
from emailproxy.secret import Secret
from tests.fakes.google import AUDIENCE, TOKEN_URL, FakeGoogle, ServiceAccount
from tests.fakes.tunnel import tunnel
from tests.oauth.world import ADA, Turned

STRAY_SETTINGS = (
    *("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"),
)
IMPERSONATION_URL = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{}:generateAccessToken"


@dataclass
class GoogleWorld:
    folder: Path
    google: FakeGoogle
    flow: Flow
    turned: Turned
    account: ServiceAccount
    """Of the Workspace's project: it may act for all its users' mail."""

    def file(self, content: object, name: str = "key.json") -> str:
        """A JSON file's path."""
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    def configured(self, client_secret: SecretSource | str | None, **changes: Any) -> Account:
        """An account; a plain string is the inline value of `client_secret`."""
        settings: dict[str, Any] = {
            "name": ADA,
            "section": ADA,
            "flow": FlowName.SERVICE_ACCOUNT,
            "provider": ProviderName.GOOGLE,
            "token_url": TOKEN_URL,
            "client_id": "file",
            "client_secret": Secret(client_secret) if isinstance(client_secret, str) else client_secret,
        }
        return Account(**{**settings, **changes})

    def federation(self, credential_source: object, **changes: Any) -> dict[str, Any]:
        """What ``gcloud iam workload-identity-pools create-cred-config`` writes."""
        return {
            "type": "external_account",
            "audience": AUDIENCE,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": "https://sts.googleapis.com/v1/token",
            "credential_source": credential_source,
            **changes,
        }

    def paths(self) -> list[str]:
        """What was asked of Google, in order."""
        return [asked.path.rpartition("/")[2].rpartition(":")[2] for asked in self.google.asked]

    def mailbox(self, token: Secret) -> str:
        """Whose mail an access token opens."""
        return str(self.google.verify(token.reveal())["email"])


@asynccontextmanager
async def google_world(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GoogleWorld]:
    authority = Authority.create(folder)
    turned = Turned()
    blocking = Blocking(ca_file=authority.certificate_file)
    secrets = Secrets(Commands())
    flow = grants(blocking, secrets, Attempts(turned.clock), clock=turned.clock)[FlowName.SERVICE_ACCOUNT]
    async with FakeGoogle(authority, ADA) as google, tunnel(google.targets) as proxy:
        for name in STRAY_SETTINGS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("https_proxy", proxy)
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(folder / "gcloud"))
        try:
            yield GoogleWorld(folder, google, flow, turned, google.service_account())
        finally:
            blocking.close()
