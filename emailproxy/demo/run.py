"""The whole demo on loopback: an embedded provider and mailbox, a person, and the real proxy between them."""

from __future__ import annotations

import asyncio
import base64
import functools
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from aiohttp import web

from emailproxy.config import ini
from emailproxy.demo import clients
from emailproxy.demo.certificates import Authority
from emailproxy.demo.clients import DemoFailed, Visit
from emailproxy.demo.imap import ImapServer
from emailproxy.demo.ledger import Client, TokenInvalid
from emailproxy.demo.mailbox import Mailboxes
from emailproxy.demo.person import Person
from emailproxy.demo.pop3 import Pop3Server
from emailproxy.demo.provider import Provider
from emailproxy.demo.server import MailServer
from emailproxy.demo.smtp import SmtpServer
from emailproxy.demo.tapped import TappedPort
from emailproxy.demo.transcript import Line, Speaker, Transcript
from emailproxy.service import Service

ACCOUNT = "demo@example.test"
CLIENT_ID = "emailproxy-demo"
SCOPE = "mail offline_access"
HOST = "127.0.0.1"
CONSENT_WAIT_S = 4
"""The demo's person is quick; where the sign-in fails, smtplib tries a second mechanism and waits again."""
SUBJECT = "Hello through the proxy"

CONFIGURATION = """\
[emailproxy]
state_dir = {folder}/state
log_file = {folder}/emailproxy.log
ca_file = {ca_file}
consent_wait = {consent_wait_s}

{servers}
[{account}]
permission_url = {provider.permission_url}
token_url = {provider.token_url}
oauth2_scope = {scope}
oauth2_flow = authorization_code
client_id = {client.id}
client_secret = {client.secret}
redirect_uri = {redirect_uri}
"""
SERVER = """\
[{protocol}-{local_port}]
local_address = {host}
server_address = {host}
server_port = {port}
"""

Work = Callable[[Visit, str], str]
STEPS: tuple[tuple[str, str, Work], ...] = (
    ("SMTP", "smtplib", clients.send),
    ("IMAP", "imaplib", clients.read_by_imap),
    ("POP", "poplib", clients.read_by_pop),
)
"""Protocol, program, and what it does. The first login is the one that needs the consent."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one program did, and what was said until its login stood."""

    protocol: str
    program: str
    outcome: str
    lines: tuple[Line, ...]


class TappedProvider(Provider):
    """A provider whose token endpoint shows up in the transcript."""

    transcript: Transcript

    async def _token_endpoint(self, request: web.Request) -> web.StreamResponse:
        reply = await super()._token_endpoint(request)
        asked, said = f"POST /token grant_type={self.requests[-1].grant}", f"{reply.status} {reply.reason}"
        self.transcript.record("OAuth", Speaker.PROXY, Speaker.PROVIDER, asked)
        self.transcript.record("OAuth", Speaker.PROVIDER, Speaker.PROXY, said)
        return reply


class Demo:
    """From ``async with`` until its end, the proxy listens on `addresses` for `account` with `password`."""

    account = ACCOUNT

    def __init__(self) -> None:
        self.password = secrets.token_hex(6)
        self.addresses: dict[str, tuple[str, int]] = {}
        # AUTH LOGIN says the password on a line of its own, in base64.
        encoded = base64.b64encode(self.password.encode()).decode()
        self._transcript = Transcript(self.password, encoded)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def steps(self) -> AsyncIterator[Step]:
        """Lets the three programs do their work, one after the other.

        Raises:
            DemoFailed: one of them could not.
        """
        for protocol, program, work in STEPS:
            outcome = await self._work(protocol, work)
            yield Step(protocol, program, outcome, self._transcript.take())

    async def _work(self, protocol: str, work: Work) -> str:
        async with TappedPort(protocol, self.addresses[protocol], self._transcript.near) as tapped:
            logged_in = functools.partial(self._transcript.close, protocol)
            visit = Visit(HOST, tapped.port, ACCOUNT, self.password, logged_in)
            try:
                return await asyncio.to_thread(work, visit, SUBJECT)
            except DemoFailed as error:
                if self._person.problem is None:
                    raise
                raise DemoFailed(f"{error}; {self._person.problem}") from error

    async def _start(self) -> None:
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="emailproxy-demo-")))
        authority = Authority.create(folder, "emailproxy demo")
        *local_ports, redirect_port = free_ports(len(STEPS) + 1)
        redirect_uri = f"http://{HOST}:{redirect_port}/"
        client = Client(CLIENT_ID, secrets.token_urlsafe(16), (redirect_uri,))
        provider = TappedProvider([client], account=ACCOUNT, auto_approve=True)
        provider.transcript = self._transcript
        await self._stack.enter_async_context(provider)
        servers = await self._start_mailbox(authority, provider)
        sections = [
            SERVER.format(protocol=protocol, local_port=port, host=HOST, port=servers[protocol].port)
            for (protocol, _, _), port in zip(STEPS, local_ports, strict=True)
        ]
        configuration = CONFIGURATION.format(
            folder=folder,
            ca_file=authority.certificate_file,
            consent_wait_s=CONSENT_WAIT_S,
            servers="\n".join(sections),
            account=ACCOUNT,
            provider=provider,
            scope=SCOPE,
            client=client,
            redirect_uri=redirect_uri,
        )
        await self._start_proxy(folder / "emailproxy.ini", configuration)

    async def _start_proxy(self, path: Path, configuration: str) -> None:
        _write(path, configuration)
        self._person = await self._stack.enter_async_context(Person(self._transcript))
        service = Service(ini.load(path))
        await service.start()
        self._stack.push_async_callback(service.stop)
        for section, bound in service.addresses.items():
            self.addresses[section.partition("-")[0]] = bound[0]

    async def _start_mailbox(self, authority: Authority, provider: Provider) -> dict[str, MailServer]:
        tls = authority.issue(HOST, "localhost").server_context()
        mailboxes = Mailboxes()

        def verify(user: str, token: str) -> bool:
            try:
                return bool(provider.verify(token).get("email") == user)
            except TokenInvalid:
                return False

        kinds: tuple[type[MailServer], ...] = (ImapServer, Pop3Server, SmtpServer)
        return {
            kind.protocol: await self._stack.enter_async_context(
                kind(mailboxes, verify, tls=tls, tap=self._transcript.far)
            )
            for kind in kinds
        }


def _write(path: Path, configuration: str) -> None:
    """Owner-only from the first octet: it holds the client secret."""
    path.touch(0o600)
    path.write_text(configuration, "utf-8")


def free_ports(count: int) -> list[int]:
    """Ports of `HOST` that nobody listens on at this moment, all different."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports
