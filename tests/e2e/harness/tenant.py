"""The provider, a mail server like Exchange, and the proxy between it and two local ports."""

from __future__ import annotations

import asyncio
import contextlib
import imaplib
import smtplib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emailproxy.demo.certificates import Authority
from emailproxy.demo.ledger import Client
from emailproxy.demo.provider import Provider
from tests.e2e.harness.browser import visit
from tests.e2e.harness.exchange import Exchange, exchange
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import Proxy, serve
from tests.e2e.harness.world import CLIENT_ID, CLIENT_SECRET, PASSWORD, USER, upstream, write_config

APPLICATION = "https://outlook.office365.com/.default"
"""The scope of an application's token."""
DELEGATED = "https://outlook.office365.com/IMAP.AccessAsUser.All offline_access"
"""The scope of a person's token."""


@dataclass
class Tenant:
    authority: Authority
    provider: Provider
    server: Exchange
    proxy: Proxy
    imap: int
    smtp: int

    def log_in_imap(self, user: str = USER, password: str = PASSWORD) -> imaplib.IMAP4:
        client = imaplib.IMAP4("127.0.0.1", self.imap)
        try:
            client.login(user, password)
        except imaplib.IMAP4.error:
            client.shutdown()
            raise
        return client

    def log_in_smtp(self, user: str = USER, password: str = PASSWORD) -> smtplib.SMTP:
        client = smtplib.SMTP("127.0.0.1", self.smtp)
        client.user, client.password = user, password
        try:
            client.ehlo()
            # Once: `login` goes through all mechanisms.
            client.auth("PLAIN", client.auth_plain)
        except smtplib.SMTPException:
            client.close()
            raise
        return client

    async def log_in(self, protocol: str) -> None:
        """Logs in, and out."""

        def in_and_out() -> None:
            if protocol == "IMAP":
                self.log_in_imap().logout()
            else:
                self.log_in_smtp().quit()

        await asyncio.to_thread(in_and_out)

    async def refusal(self, protocol: str, user: str = USER, password: str = PASSWORD) -> str:
        """What a login that must fail is told."""
        log_in = self.log_in_imap if protocol == "IMAP" else self.log_in_smtp
        with pytest.raises((imaplib.IMAP4.error, smtplib.SMTPException)) as caught:
            await asyncio.to_thread(log_in, user, password)
        return str(caught.value)

    async def sign_in(self) -> None:
        """A person's first login, approved while the client waits."""
        login = asyncio.create_task(self.log_in("IMAP"))
        await visit(await self.proxy.consent_url(USER), self.authority)
        await login


@contextlib.asynccontextmanager
async def tenant(
    folder: Path,
    *,
    scope: str = APPLICATION,
    greeting_names_capabilities: bool = False,
    mail_tls: Callable[[Authority], ssl.SSLContext] | None = None,
    accounts: Mapping[str, Mapping[str, object]] | None = None,
    listeners: Mapping[str, Mapping[str, object]] | None = None,
    settings: Mapping[str, object] | None = None,
    **provider_options: Any,
) -> AsyncIterator[Tenant]:
    """Starts it all.

    Args:
        mail_tls: makes the mail server's certificate, where it is not to be a good one.
        accounts: further sections, beside the domain's.
        listeners: further ports, e.g. `IMAP-2993`, with what is different there.
        settings: further keys of `[emailproxy]`.
    """
    authority = Authority.create(folder)
    good = authority.issue("localhost").server_context()
    imap, smtp, redirect = free_ports(3)
    client = Client(CLIENT_ID, CLIENT_SECRET, (f"http://localhost:{redirect}/",))
    options: dict[str, Any] = {"host": "localhost", "account": USER, "auto_approve": True} | provider_options
    mail = mail_tls(authority) if mail_tls else good
    async with Provider([client], tls=good, **options) as provider:
        with exchange(provider, mail, greeting_names_capabilities=greeting_names_capabilities) as server:
            own = {"ca_file": authority.certificate_file, "state_dir": folder / "state", "log_file": folder / "log"}
            sections: dict[str, dict[str, object]] = {
                "emailproxy": {**own, "allow_catch_all_accounts": True, **(settings or {})},
                f"IMAP-{imap}": upstream(server.imap_port),
                f"SMTP-{smtp}": upstream(server.smtp_port, starttls=True),
                "@example.com": _account(provider, client, scope),
                **{name: dict(keys) for name, keys in (accounts or {}).items()},
            }
            for name, keys in (listeners or {}).items():
                sections[name] = sections[f"IMAP-{imap}" if name.startswith("IMAP") else f"SMTP-{smtp}"] | dict(keys)
            config = write_config(folder / "emailproxy.ini", sections)
            async with serve("--config", config, log_file=folder / "log", home=folder) as proxy:
                yield Tenant(authority, provider, server, proxy, imap, smtp)


def _account(provider: Provider, client: Client, scope: str) -> dict[str, object]:
    return {
        "permission_url": provider.permission_url,
        "token_url": provider.token_url,
        "oauth2_scope": scope,
        "oauth2_flow": "client_credentials",
        "client_id": client.id,
        "client_secret": client.secret,
        "redirect_uri": client.redirect_uris[0],
    }
