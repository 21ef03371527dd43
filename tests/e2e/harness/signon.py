"""A mailbox whose provider is oidc-provider: Dovecot takes its tokens, the proxy fetches them, a person signs in."""

from __future__ import annotations

import asyncio
import contextlib
import imaplib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emailproxy.demo.certificates import Authority, Certificate
from tests.e2e.harness.chromium import Chromium, Shown
from tests.e2e.harness.dovecot import Dovecot, dovecot
from tests.e2e.harness.oidc import ClientCertificate, OpenIdProvider, oidc_provider, registration
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import Proxy, serve
from tests.e2e.harness.world import CLIENT_ID, CLIENT_SECRET, PASSWORD, USER, imap_login, upstream, write_config

SCOPE = "IMAP SMTP"
SUCCESS = f"Email OAuth 2.0 authentication succeeded for {USER}"


@dataclass(frozen=True)
class Trust:
    """One authority and one certificate, for `localhost`, which serve all of a module's tests and its browser."""

    authority: Authority
    certificate: Certificate

    @classmethod
    def create(cls, folder: Path) -> Trust:
        authority = Authority.create(folder)
        return cls(authority, authority.issue("localhost"))


@dataclass
class SignOn:
    folder: Path
    trust: Trust
    provider: OpenIdProvider
    server: Dovecot
    imap: int
    redirect_uri: str

    @property
    def person(self) -> dict[str, object]:
        """An account's section, for the authorization code grant."""
        return {
            "permission_url": self.provider.permission_url,
            "token_url": self.provider.token_url,
            "oauth2_scope": f"{SCOPE} offline_access",
            "oauth2_flow": "authorization_code",
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "redirect_uri": self.redirect_uri,
        }

    @property
    def application(self) -> dict[str, object]:
        """An account's section, for the client credentials grant."""
        return {
            "token_url": self.provider.token_url,
            "oauth2_scope": SCOPE,
            "oauth2_flow": "client_credentials",
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
        }

    @property
    def device(self) -> dict[str, object]:
        """An account's section, for the device grant."""
        return self.application | {"permission_url": self.provider.device_url, "oauth2_flow": "device"}

    @contextlib.asynccontextmanager
    async def proxy(self, account: dict[str, object], *, consent_wait: float = 0.5) -> AsyncIterator[Proxy]:
        """The proxy with this account; a login waits so many seconds for a person."""
        log_file = self.folder / "emailproxy.log"
        globals_ = {
            "ca_file": self.trust.authority.certificate_file,
            "state_dir": self.folder / "state",
            "log_file": log_file,
            "consent_wait": consent_wait,
        }
        sections = {"emailproxy": globals_, f"IMAP-{self.imap}": upstream(self.server.imap.tls), USER: account}
        config = write_config(self.folder / "emailproxy.ini", sections)
        async with serve("--config", config, log_file=log_file, home=self.folder) as running:
            yield running

    async def log_in(self) -> None:
        await asyncio.to_thread(imap_login, self.imap)

    async def refusal(self) -> str:
        """What a login that must fail is told."""

        def refused() -> str:
            with imaplib.IMAP4("127.0.0.1", self.imap) as client, pytest.raises(imaplib.IMAP4.error) as caught:
                client.login(USER, PASSWORD)
            return str(caught.value)

        return await asyncio.to_thread(refused)

    async def link(self) -> str:
        """The short link that a login is told which needs a person."""
        told = await self.refusal()
        found = re.search(r"http://\S+/c/[\w-]+", told)
        assert found, told
        return found[0]


async def sign_in(browser: Chromium, user: str = USER) -> None:
    """Fills the provider's login page, which the browser shows, and consents."""
    await browser.fill("login", user)
    await browser.fill("password", "the person's own")
    await browser.press("Sign-in")
    await browser.press("Continue")


async def signed_in(browser: Chromium, link: str) -> Shown:
    """Opens the link, and signs in; our page at the end."""
    await browser.open(link)
    await sign_in(browser)
    return await browser.sees("Signed in")


@contextlib.asynccontextmanager
async def sign_on(
    folder: Path, trust: Trust, *, certificate: ClientCertificate | None = None, **provider_options: Any
) -> AsyncIterator[SignOn]:
    """Starts all but the proxy and the browser. Its client has a secret, unless it has a certificate."""
    imap, redirect, nobody = free_ports(3)
    redirect_uri = f"http://localhost:{redirect}/"
    client = registration(
        CLIENT_ID, redirect_uri=redirect_uri, mailbox=USER, secret=CLIENT_SECRET, certificate=certificate
    )
    async with (
        oidc_provider(trust.certificate, [client], **provider_options) as provider,
        dovecot(
            public_key_pem=provider.public_key_pem,
            certificate=trust.certificate.certificate_file,
            key=trust.certificate.key_file,
            relay_port=nobody,
        ) as server,
    ):
        yield SignOn(folder, trust, provider, server, imap, redirect_uri)
