"""A whole site in this process: a provider, a mailbox behind three servers over TLS, and the configuration for both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emailproxy.check.chain import check
from emailproxy.check.finding import Finding, Grade, Link
from emailproxy.config import catchall, ini
from emailproxy.config.model import Account, Config
from emailproxy.demo.certificates import Authority as Ca
from emailproxy.demo.imap import ImapServer
from emailproxy.demo.ledger import Client, TokenInvalid
from emailproxy.demo.mailbox import Mailboxes
from emailproxy.demo.pop3 import Pop3Server
from emailproxy.demo.smtp import SmtpServer
from emailproxy.secret import Secret
from emailproxy.service import Authority
from tests.e2e.harness.ports import free_ports
from tests.fakes.provider import FakeProvider
from tests.oauth.world import browse

ADA, ROBOT = "ada@example.org", "robot@example.org"
PASSWORD = Secret('canary "local\\ password')
CLIENT_SECRET = "canary-client-secret"

Sections = dict[str, dict[str, object]]


@dataclass
class Site:
    folder: Path
    ca: Ca
    provider: FakeProvider
    ports: dict[str, int]
    """The mail servers', by protocol."""
    redirect: int
    takes: bool = True
    """Whether the mail servers take tokens."""
    sections: Sections = field(default_factory=dict)
    """Added to the configuration; keys go over the usual ones, and None takes a section or key away."""

    @classmethod
    @asynccontextmanager
    async def at(cls, folder: Path) -> AsyncIterator[Site]:
        (redirect,) = free_ports(1)
        ca = Ca.create(folder)
        tls = ca.issue("localhost").server_context()
        client = Client("test-client", CLIENT_SECRET, (f"http://localhost:{redirect}/",))
        async with FakeProvider([client], auto_approve=True) as provider, AsyncExitStack() as stack:
            site = cls(folder, ca, provider, {}, redirect)
            for kind in (ImapServer, Pop3Server, SmtpServer):
                server = await stack.enter_async_context(kind(Mailboxes(), site.verify, tls=tls))
                site.ports[server.protocol] = server.port
            yield site

    def verify(self, user: str, token: str) -> bool:
        try:
            self.provider.verify(token)
        except TokenInvalid:
            return False
        return self.takes

    @property
    def config(self) -> Config:
        person: dict[str, object] = {
            "token_url": self.provider.token_url,
            "permission_url": self.provider.permission_url,
            "oauth2_scope": "mail offline_access",
            "client_id": "test-client",
            "client_secret": CLIENT_SECRET,
            "redirect_uri": f"http://localhost:{self.redirect}/",
        }
        whole: Sections = {
            "emailproxy": {
                "state_dir": self.folder / "state", "log_file": self.folder / "log",
                "ca_file": self.ca.certificate_file,
            },
            **{
                f"{protocol}-{2000 + number}": {"server_address": "localhost", "server_port": port}
                for number, (protocol, port) in enumerate(self.ports.items())
            },
            ADA: person,
            ROBOT: person | {"permission_url": None, "redirect_uri": None, "oauth2_flow": "client_credentials"},
        }  # fmt: skip
        for name, keys in self.sections.items():
            whole[name] = whole.get(name, {}) | keys
        lines = []
        for name, keys in whole.items():
            lines += [f"[{name}]", *(f"{key} = {value}" for key, value in keys.items() if value is not None), ""]
        path = self.folder / "emailproxy.ini"
        path.touch(0o600)
        path.write_text("\n".join(lines))
        return ini.load(path)

    def section(self, protocol: str) -> str:
        return f"{protocol}-{2000 + list(self.ports).index(protocol)}"

    def account(self, name: str = ADA) -> Account:
        return catchall.resolve(self.config, name)

    async def sign_in(self, name: str = ADA) -> None:
        async with Authority(self.config) as authority:
            waiting = await authority.broker.sign_in(name, PASSWORD)
            if waiting is not None:
                assert (await browse(waiting.url)).status == 200
                assert await waiting.wait(10)

    async def findings(self, name: str | None = ADA, password: Secret | None = PASSWORD) -> list[Finding]:
        account = None if name is None else self.account(name)
        return [finding async for finding in check(self.config, account, password)]


def of(findings: list[Finding], link: Link) -> list[Finding]:
    return [finding for finding in findings if finding.link is link]


def broken(findings: list[Finding]) -> Finding:
    """The last link, which ends the chain."""
    assert findings[-1].breaks
    assert not any(finding.breaks for finding in findings[:-1])
    return findings[-1]


def grades(findings: list[Finding], link: Link) -> set[Grade]:
    return {finding.grade for finding in of(findings, link)}


def told(findings: list[Finding]) -> str:
    """All that was told, as JSON has it."""
    return str([finding.as_json() for finding in findings])


def without(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names)
