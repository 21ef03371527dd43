"""One mailbox, and a provider of every kind for it: one as the RFCs have it, Microsoft, Google.

The proxy finds Microsoft and Google under their own names, through the HTTP proxy of its environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import imaplib
import poplib
import re
import smtplib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from emailproxy.demo.certificates import Authority
from emailproxy.demo.ledger import Client, Ledger
from tests.e2e.harness.browser import Page, visit
from tests.e2e.harness.dovecot import Dovecot, dovecot
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import Program, Proxy, emailproxy, running, serve
from tests.e2e.harness.run import Outcome
from tests.e2e.harness.sink import sink
from tests.e2e.harness.world import CLIENT_ID, CLIENT_SECRET, PASSWORD, USER, imap_login, upstream, write_config
from tests.fakes.entra import App
from tests.fakes.google import FakeGoogle
from tests.fakes.microsoft import MAIL_SCOPE, TENANT, FakeMicrosoft
from tests.fakes.provider import FakeProvider
from tests.fakes.tunnel import Target, tunnel

SCOPE = "https://mail.example.com/IMAP offline_access"
SUCCESS = f"Email OAuth 2.0 authentication succeeded for {USER}"
HOST = "127.0.0.1"
PATIENCE_S = 30.0
"""For a mail program; also the longest that anything here may take."""

PROVES = frozenset({
    "client_secret", "client_assertion", "code", "code_verifier", "refresh_token", "device_code", "password",
    "assertion", "subject_token",
})  # fmt: skip
"""What requests to a provider say that nobody else may learn."""
# RFC 7519 section 3: header and claims of a JWT are JSON objects, in base64url
JWT = re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}")

Settings = dict[str, object]
Fake = FakeProvider | FakeMicrosoft | FakeGoogle


class Ports(NamedTuple):
    """The proxy's local ports."""

    imap: int
    pop: int
    smtp: int


@dataclass
class Realm:
    folder: Path
    authority: Authority
    provider: FakeProvider
    server: Dovecot
    redirect_uri: str
    local: Ports
    names: dict[Target, int]
    """Which hosts and ports lead to local ports, for the proxy and the person's browser."""
    env: dict[str, str]
    """Of the proxy and the other commands."""
    canaries: set[str] = field(default_factory=lambda: {PASSWORD, CLIENT_SECRET})
    """Secrets besides those that providers see."""
    said: list[str] = field(default_factory=list)
    """What the proxy and the commands printed, and told mail programs and browsers."""
    fakes: list[Fake] = field(default_factory=list)
    name: str = "emailproxy"
    """Of this server's own files."""

    @property
    def config(self) -> Path:
        return self.folder / f"{self.name}.ini"

    @property
    def log_file(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    # ---- accounts' sections

    @property
    def application(self) -> Settings:
        """For the client credentials grant; other grants begin with it."""
        return {
            "token_url": self.provider.token_url,
            "oauth2_scope": "https://mail.example.com/.default",
            "oauth2_flow": "client_credentials",
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
        }

    @property
    def person(self) -> Settings:
        """For the authorization code grant."""
        return self.application | {
            "oauth2_flow": "authorization_code",
            "permission_url": self.provider.permission_url,
            "oauth2_scope": SCOPE,
            "redirect_uri": self.redirect_uri,
        }

    @property
    def device(self) -> Settings:
        return self.application | {
            "oauth2_flow": "device",
            "permission_url": self.provider.device_url,
            "oauth2_scope": SCOPE,
        }

    def at_microsoft(self, app: App, flow: str) -> Settings:
        """An account of Contoso."""
        section: Settings = {
            "provider": "microsoft",
            "tenant": TENANT,
            "oauth2_flow": flow,
            "oauth2_scope": f"{MAIL_SCOPE} offline_access",
            "client_id": app.id,
        }
        if flow == "client_credentials":
            section["oauth2_scope"] = "https://outlook.office365.com/.default"
        if flow == "authorization_code":
            section["redirect_uri"] = self.redirect_uri
        return section if app.secret is None else section | {"client_secret": app.secret}

    # ---- what runs

    @contextlib.asynccontextmanager
    async def microsoft(self, *apps: App, **options: Any) -> AsyncIterator[FakeMicrosoft]:
        """Microsoft's sign-in endpoints, where the mailbox's user signs in."""
        options = {"user": USER, "application_claims": {"email": USER}} | options
        async with FakeMicrosoft(self.authority, *apps, **options) as fake:
            self._knows(fake)
            yield fake

    @contextlib.asynccontextmanager
    async def google(self) -> AsyncIterator[FakeGoogle]:
        async with FakeGoogle(self.authority, USER) as fake:
            self._knows(fake)
            yield fake

    def _knows(self, fake: FakeMicrosoft | FakeGoogle) -> None:
        self.fakes.append(fake)
        self.names.update(fake.targets)

    def configure(self, account: Settings, *, also: Mapping[str, Settings] | None = None, **settings: object) -> Path:
        """Writes the configuration: the user's account, further sections, and settings of `[emailproxy]`."""
        usual: Settings = {
            "ca_file": self.authority.certificate_file,
            "state_dir": self.state,
            "log_file": self.log_file,
            "consent_wait": 0.5,
        }
        sections = {
            "emailproxy": usual | settings,
            f"IMAP-{self.local.imap}": upstream(self.server.imap.tls),
            f"POP-{self.local.pop}": upstream(self.server.pop.tls),
            f"SMTP-{self.local.smtp}": upstream(self.server.smtp.starttls, starttls=True),
            USER: account,
        }
        return write_config(self.config, sections | dict(also or {}))

    @contextlib.asynccontextmanager
    async def proxy(
        self, account: Settings, *, also: Mapping[str, Settings] | None = None, **settings: object
    ) -> AsyncIterator[Proxy]:
        config = self.configure(account, also=also, **settings)
        async with serve("--config", config, log_file=self.log_file, home=self.folder, env=self.env) as running:
            yield running
        self.said.append(running.output)

    async def run(self, *arguments: str, stdin: str = "") -> Outcome:
        """One of the commands, with this server's configuration."""
        outcome = await emailproxy(
            *arguments, "--config", self.config, home=self.folder, env=self.env, stdin=stdin.encode()
        )
        self.said.append(outcome.output)
        return outcome

    @contextlib.asynccontextmanager
    async def authorize(self, *options: str, password: str = PASSWORD) -> AsyncIterator[Program]:
        """`authorize`, which waits for a person."""
        arguments: list[str | Path] = ["authorize", USER, "--password-file", "-", *options, "--config", self.config]
        stdin = f"{password}\n".encode()
        async with running(*arguments, home=self.folder, env=self.env, stdin=stdin, kind=Program) as program:
            yield program
        self.said.append(program.output)

    def twin(self) -> Realm:
        """The same for another server on the same state folder."""
        return replace(self, local=Ports(*free_ports(3)), name="twin")

    # ---- mail programs and browsers

    async def log_in(self, user: str = USER, password: str = PASSWORD) -> None:
        """By IMAP, POP3 and SMTP, and out again."""
        await asyncio.to_thread(self._use_mail, user, password)

    def _use_mail(self, user: str, password: str) -> None:
        with imaplib.IMAP4(HOST, self.local.imap, timeout=PATIENCE_S) as imap:
            imap.login(user, password)
            assert imap.select()[0] == "OK"
        pop = poplib.POP3(HOST, self.local.pop, timeout=PATIENCE_S)
        pop.user(user)
        pop.pass_(password)
        assert pop.stat()[0] == 0
        pop.quit()
        with smtplib.SMTP(HOST, self.local.smtp, timeout=PATIENCE_S) as smtp:
            smtp.login(user, password)
            assert smtp.mail(user)[0] == 250

    async def log_in_until(self, seen: Callable[[], bool], password: str = PASSWORD) -> None:
        """Logs in again and again: only time makes a token end, and the next login notices."""
        async with asyncio.timeout(PATIENCE_S):
            while not seen():
                await asyncio.to_thread(imap_login, self.local.imap, USER, password)

    async def refusal(self, user: str = USER, password: str = PASSWORD) -> str:
        """What a login that must fail is told."""

        def refused() -> str:
            with (
                imaplib.IMAP4(HOST, self.local.imap, timeout=PATIENCE_S) as client,
                pytest.raises(imaplib.IMAP4.error) as caught,
            ):
                client.login(user, password)
            return str(caught.value)

        told = await asyncio.to_thread(refused)
        self.said.append(told)
        return told

    async def visit(self, url: str) -> Page:
        page = await visit(url, self.authority, self.names)
        self.said.append(page.text)
        return page

    async def sign_in(self) -> None:
        """A login is told to come back, its owner opens the link, and the next one goes through."""
        told = await self.refusal()
        found = re.search(r"http://\S+/c/[\w-]+", told)
        assert found, told
        page = await self.visit(found[0])
        assert SUCCESS in page.text, page
        await self.log_in()

    # ---- what must not be said

    def leaks(self) -> list[str]:
        """Secrets in any log, output, reply, page or file of the state folder."""
        files = [path for path in self.folder.glob("*.log*") if path.is_file()]
        files += [path for path in self.state.rglob("*") if path.is_file()]
        text = "\n".join([*self.said, *(path.read_text(errors="replace") for path in files)])
        secrets = {*self.canaries, *(secret for fake in self.fakes for secret in secrets_of(fake))}
        return [secret for secret in secrets if secret in text] + JWT.findall(text)


def secrets_of(fake: Fake) -> set[str]:
    """What a provider was told or gave, as far as only it and the proxy may know."""
    requests: list[Any] = fake.requests if isinstance(fake, FakeProvider) else fake.asked
    sent = {str(value) for request in requests for name, value in request.form.items() if name in PROVES and value}
    ledger: Ledger = fake._ledger
    return sent | set(ledger._families) | set(ledger._codes)


@contextlib.asynccontextmanager
async def realm(folder: Path, *, public: bool = False, **provider_options: Any) -> AsyncIterator[Realm]:
    """Starts all but the proxy. The provider's client is `public`, or has a secret."""
    authority = Authority.create(folder)
    certificate = authority.issue("localhost")
    *local, redirect = free_ports(4)
    redirect_uri = f"http://localhost:{redirect}/"
    client = Client(CLIENT_ID, None if public else CLIENT_SECRET, (redirect_uri,))
    options: dict[str, Any] = {
        "tls": certificate.server_context(), "host": "localhost", "account": USER, "auto_approve": True,
        "application_claims": {"email": USER},
    }  # fmt: skip
    names: dict[Target, int] = {}
    async with (
        FakeProvider([client], **options | provider_options) as provider,
        tunnel(names) as proxy,
        sink() as mails,
        dovecot(
            public_key_pem=provider.public_key_pem,
            certificate=certificate.certificate_file,
            key=certificate.key_file,
            relay_port=mails.port,
        ) as server,
    ):
        env = {"https_proxy": str(proxy), "no_proxy": "localhost,127.0.0.1"}
        ours = Realm(folder, authority, provider, server, redirect_uri, Ports(*local), names, env, fakes=[provider])
        yield ours
        assert ours.leaks() == []
