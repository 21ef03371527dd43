"""Everything around the proxy, started together: authority, provider, mail server, sink; and its configuration."""

from __future__ import annotations

import asyncio
import contextlib
import imaplib
import poplib
import smtplib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emailproxy.demo.certificates import Authority
from emailproxy.demo.ledger import Client
from emailproxy.demo.provider import Provider
from tests.e2e.harness.browser import Page, visit
from tests.e2e.harness.dovecot import Dovecot, dovecot
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import Proxy, serve
from tests.e2e.harness.sink import Sink, sink

USER = "ann@example.com"
PASSWORD = "correct horse battery staple"
CLIENT_ID = "the-client"
CLIENT_SECRET = "the-client-secret-canary"
SCOPE = "https://mail.example.com/IMAP https://mail.example.com/SMTP offline_access"


@dataclass(frozen=True)
class Endpoints:
    """The proxy's local ports, by the kind of connection that it makes upstream."""

    imap: int
    imap_starttls: int
    pop: int
    pop_starttls: int
    smtp: int
    smtp_starttls: int
    redirect: int


@dataclass
class World:
    folder: Path
    authority: Authority
    provider: Provider
    server: Dovecot
    sink: Sink
    local: Endpoints

    @property
    def log_file(self) -> Path:
        return self.folder / "emailproxy.log"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def redirect_uri(self) -> str:
        return f"http://localhost:{self.local.redirect}/"

    @property
    def globals(self) -> dict[str, object]:
        """The `[emailproxy]` section."""
        return {
            "ca_file": self.authority.certificate_file,
            "state_dir": self.state,
            "log_file": self.log_file,
        }

    @property
    def account(self) -> dict[str, object]:
        """An account's section, for the authorization code grant."""
        return {
            "permission_url": self.provider.permission_url,
            "token_url": self.provider.token_url,
            "oauth2_scope": SCOPE,
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
            "oauth2_scope": "https://mail.example.com/.default",
            "oauth2_flow": "client_credentials",
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
        }

    @property
    def servers(self) -> dict[str, dict[str, object]]:
        """The listening sections: each protocol over implicit TLS and over STARTTLS."""
        local, server = self.local, self.server
        return {
            f"IMAP-{local.imap}": upstream(server.imap.tls),
            f"IMAP-{local.imap_starttls}": upstream(server.imap.starttls, starttls=True),
            f"POP-{local.pop}": upstream(server.pop.tls),
            f"POP-{local.pop_starttls}": upstream(server.pop.starttls, starttls=True),
            f"SMTP-{local.smtp}": upstream(server.smtp.tls),
            f"SMTP-{local.smtp_starttls}": upstream(server.smtp.starttls, starttls=True),
        }

    def configure(self, **sections: dict[str, object]) -> Path:
        """Writes a configuration: the defaults above, with whole sections replaced or added."""
        default = {"emailproxy": self.globals, **self.servers, USER: self.account}
        return write_config(self.folder / "emailproxy.ini", default | sections)

    @contextlib.asynccontextmanager
    async def proxy(self, config: Path | None = None) -> AsyncIterator[Proxy]:
        arguments = ("--config", config or self.configure())
        async with serve(*arguments, log_file=self.log_file, home=self.folder) as running:
            yield running

    async def visit(self, url: str) -> Page:
        return await visit(url, self.authority)

    async def sign_in(self, proxy: Proxy, user: str = USER, password: str = PASSWORD) -> None:
        """The account's first login, its consent approved while the client waits."""
        self.provider.account = user
        start = len(proxy.output)
        login = asyncio.create_task(asyncio.to_thread(imap_login, self.local.imap, user, password))
        try:
            page = await self.visit(await proxy.consent_url(user, start=start))
            assert f"Email OAuth 2.0 authentication succeeded for {user}" in page.text, page
            await login
        finally:  # where it is interrupted, nobody waits for the login's refusal
            login.cancel()
            await asyncio.gather(login, return_exceptions=True)


def imap_login(port: int, user: str = USER, password: str = PASSWORD) -> list[str]:
    """Logs in and out; returns the mailboxes' names."""
    with imaplib.IMAP4("127.0.0.1", port) as client:
        client.login(user, password)
        return [line.decode() for line in client.list()[1] if isinstance(line, bytes)]


def pop_login(port: int, user: str = USER, password: str = PASSWORD) -> int:
    """Logs in and out; returns how many messages there are."""
    client = poplib.POP3("127.0.0.1", port)
    client.user(user)
    client.pass_(password)
    count, _ = client.stat()
    client.quit()
    return count


def smtp_login(port: int, user: str = USER, password: str = PASSWORD) -> None:
    """Logs in and out."""
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.login(user, password)


def upstream(port: int, *, host: str = "localhost", starttls: bool = False) -> dict[str, object]:
    """One listening section. Its host is what the server's certificate must say."""
    section: dict[str, object] = {
        "server_address": host, "server_port": port, "local_address": "127.0.0.1",
    }  # fmt: skip
    return section | {"server_starttls": "True"} if starttls else section


def write_config(path: Path, sections: dict[str, dict[str, object]]) -> Path:
    text = "".join(
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()) + "\n"
        for name, keys in sections.items()
    )
    path.touch(0o600)
    path.write_text(text)
    return path


@contextlib.asynccontextmanager
async def world(
    folder: Path,
    *,
    mechanisms: str = "xoauth2 oauthbearer",
    certificate_name: str = "localhost",
    now: Callable[[], float] | None = None,
    provider_type: type[Provider] = Provider,
    **provider_options: Any,
) -> AsyncIterator[World]:
    """Starts all but the proxy. The certificate of the mail server and the provider is for `localhost`."""
    authority = Authority.create(folder)
    certificate = authority.issue(certificate_name)
    local = Endpoints(*free_ports(7))
    client = Client(CLIENT_ID, CLIENT_SECRET, (f"http://localhost:{local.redirect}/",))
    options: dict[str, Any] = {"auto_approve": True, "account": USER, "host": "localhost"} | provider_options
    if now is not None:
        options["now"] = now
    async with (
        provider_type([client], tls=authority.issue("localhost").server_context(), **options) as provider,
        sink() as mails,
        dovecot(
            public_key_pem=provider.public_key_pem,
            certificate=certificate.certificate_file,
            key=certificate.key_file,
            relay_port=mails.port,
            mechanisms=mechanisms,
        ) as server,
    ):
        yield World(folder, authority, provider, server, mails, local)
