"""Microsoft's grants, as a process has them, with a tunnel to a provider of the test's own."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from emailproxy.config.model import Account, FlowName, ProviderName
from emailproxy.demo.certificates import Authority
from emailproxy.oauth import microsoft
from emailproxy.oauth.attempts import Attempts
from emailproxy.oauth.blocking import Blocking
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.flow import Consent, Flow, TokenSet
from emailproxy.oauth.secrets import Secrets
from emailproxy.secret import Secret
from tests.fakes.entra import App
from tests.fakes.microsoft import MAIL_SCOPE, PUBLIC, TENANT, FakeMicrosoft
from tests.fakes.tunnel import Tunnel, tunnel
from tests.oauth.world import ADA, CLIENT_SECRET, Turned

REDIRECT_URI = "http://localhost:8801/"
PUBLIC_APP = App("public-client", redirect_uris=(REDIRECT_URI,))
SECRET_APP = App("secret-client", CLIENT_SECRET, redirect_uris=(REDIRECT_URI,))
VERIFIER = "canary-verifier-" + "v" * 40
ALL_SCOPES = "https://outlook.office365.com/.default"


@dataclass
class Tenancy:
    microsoft: FakeMicrosoft
    flows: Mapping[FlowName, Flow]
    turned: Turned
    proxy: Tunnel
    blocking: Blocking

    @classmethod
    @asynccontextmanager
    async def at(cls, folder: Path, patch: pytest.MonkeyPatch, *apps: App, **options: Any) -> AsyncIterator[Self]:
        turned = Turned()
        authority = Authority.create(folder)
        blocking = Blocking(ca_file=authority.certificate_file)
        clock = turned.clock
        flows = microsoft.grants(blocking, Secrets(Commands()), Attempts(clock), clock=clock)
        try:
            async with (
                FakeMicrosoft(authority, *apps or (PUBLIC_APP, SECRET_APP), now=clock.wall_s, **options) as provider,
                tunnel(provider.targets) as proxy,
            ):
                patch.setenv("https_proxy", proxy)
                yield cls(provider, flows, turned, proxy, blocking)
        finally:
            blocking.close()

    def account(self, flow: FlowName, client_id: str = PUBLIC_APP.id, *, host: str = PUBLIC, **changes: Any) -> Account:
        settings: dict[str, Any] = {
            "name": ADA,
            "section": ADA,
            "flow": flow,
            "provider": ProviderName.MICROSOFT,
            "token_url": f"https://{host}/{TENANT}/oauth2/v2.0/token",
            "scope": f"{MAIL_SCOPE} offline_access",
            "client_id": client_id,
            "client_secret": Secret(CLIENT_SECRET) if client_id == SECRET_APP.id else None,
            "redirect_uri": REDIRECT_URI,
        }
        return Account(**{**settings, **changes})

    def application(self, **changes: Any) -> Account:
        return self.account(FlowName.CLIENT_CREDENTIALS, **{"client_id": SECRET_APP.id, "scope": ALL_SCOPES, **changes})

    async def acquire(self, account: Account, grant: Any = None) -> TokenSet:
        return await self.flows[account.flow].acquire(account, grant)

    async def refresh(self, account: Account, tokens: TokenSet) -> TokenSet:
        return await self.flows[account.flow].refresh(account, tokens)

    def consent(self, app: App, *, verifier: str = VERIFIER, user: str = "") -> Consent:
        """A person has approved in the browser."""
        challenge = urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
        code = self.microsoft.code(app, REDIRECT_URI, challenge, user=user)
        return Consent(Secret(code), Secret(verifier), REDIRECT_URI)
