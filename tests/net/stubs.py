"""Small honest servers, and the proxy's network half in front of them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emailproxy.config.model import MailProtocol, Route, Server
from emailproxy.demo.certificates import Authority
from emailproxy.errors import LoginRefused, WrongPassword
from emailproxy.net.activation import Activated
from emailproxy.net.dial import Dialer
from emailproxy.net.draining import Patience
from emailproxy.net.listener import Listener
from emailproxy.net.shared import SessionLimits, Shared
from emailproxy.secret import Secret
from emailproxy.wire.events import Advice, Credential, Login, Visit

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LIMITS = SessionLimits(max_connections=100, max_connections_per_address=100, login_timeout_s=30.0)
LOGIN = b"a LOGIN user@example.com secret\r\n"
AT_ONCE = Patience(quiet_s=0.02, answer_s=0.02)
GREETING = b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] ready\r\n"


@dataclass
class Tokens:
    """Takes one password, and hands out numbered tokens. `gate` holds them back while it is not set."""

    password: str = "secret"
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    refusals: list[tuple[str, LoginRefused]] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked_one: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    warm: Credential | None = None
    """What logins are given at once; nothing more is to be done after them."""
    routes: dict[str, Route] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gate.set()

    def route(self, login: Login, visit: Visit) -> Route:
        return self.routes.get(login.user, Route(login.user.casefold()))

    def at_once(self, login: Login, visit: Visit) -> Credential | None:
        return self.warm

    async def token(self, login: Login, visit: Visit, rejected: str | None = None) -> Credential:
        self.asked.append((login.user, rejected))
        self.visits.append(visit)
        self.asked_one.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        if login.password != Secret(self.password):
            raise WrongPassword("wrong")
        return Credential(login.user, Secret(f"token-{len(self.asked)}"))

    def is_settled(self, login: Login, visit: Visit) -> bool:
        return self.warm is not None

    async def accepted(self, login: Login, visit: Visit) -> None:
        self.settled.append(login.user)

    def refused(self, login: Login, visit: Visit, error: LoginRefused) -> None:
        self.refusals.append((login.user, error))

    def advise(self, text: str) -> Advice | None:
        return None


@dataclass
class Proxy:
    host: str
    port: int
    listener: Listener
    server: Server
    shared: Shared
    tokens: Tokens

    def has_seen(self, *capabilities: str) -> None:
        """The dial waits for the client: the server's capabilities are known."""
        assert self.server.target is not None
        self.shared.seen.learn(self.server.protocol, self.server.target, capabilities)

    async def connect(self, **kwargs: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port, **kwargs)  # type: ignore[arg-type]

    async def log_in(
        self, command: bytes = LOGIN, **kwargs: object
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """An IMAP client whose login the server took."""
        reader, writer = await self.connect(**kwargs)
        assert (await reader.readline()).startswith(b"* OK")
        writer.write(command)
        reply = await reader.readline()
        assert reply.startswith(b"a OK"), reply
        return reader, writer


@asynccontextmanager
async def upstream_server(handler: Handler, context: ssl.SSLContext | None, port: int = 0) -> AsyncIterator[int]:
    """A server on loopback, over TLS where a context is given; yields its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context, limit=1 << 20)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def proxy_to(
    port: int | None,
    ca_file: Path | None = None,
    *,
    protocol: MailProtocol = MailProtocol.IMAP,
    starttls: bool = False,
    host: str = "localhost",
    limits: SessionLimits = LIMITS,
    activated: Activated | None = None,
    **settings: Any,
) -> AsyncIterator[Proxy]:
    """A listening section on loopback. Without a `port` each account has its own server."""
    values: dict[str, Any] = {
        "section": "TEST",
        "protocol": protocol,
        "local_port": 0,
        "local_address": "127.0.0.1",
        "server_address": None if port is None else host,
        "server_port": port,
        "server_starttls": starttls,
        "ca_file": ca_file,
    }
    server = Server(**(values | settings))
    dialer, tokens = Dialer(), Tokens()
    shared = Shared(dialer, tokens, limits, activated)
    listener = Listener(server, shared)
    await listener.open()
    try:
        yield Proxy(*listener.addresses[0], listener, server, shared, tokens)
    finally:
        try:
            async with asyncio.timeout(1):
                await listener.close(AT_ONCE)
        except TimeoutError:
            listener.abort()
            await listener.close(AT_ONCE)
        dialer.close()


@asynccontextmanager
async def proxy_before(handler: Handler, authority: Authority, **settings: object) -> AsyncIterator[Proxy]:
    """A listening section in front of a TLS server that does so; `settings` as `proxy_to` takes them."""
    async with (
        upstream_server(handler, authority.issue("localhost").server_context()) as port,
        proxy_to(port, authority.certificate_file, **settings) as proxy,  # type: ignore[arg-type]
    ):
        yield proxy


async def accept_login(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """An IMAP server's side of a login that it takes; returns the command."""
    writer.write(GREETING)
    command = await reader.readline()
    writer.write(command.split()[0] + b" OK logged in\r\n")
    return command


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An IMAP server that takes a login, and then sends back what it gets."""
    await accept_login(reader, writer)
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def taken(writer: asyncio.StreamWriter, data: bytes) -> bool:
    """Writes; whether the other side took it within a second."""
    writer.transport.set_write_buffer_limits(high=0)
    writer.write(data)
    try:
        async with asyncio.timeout(1):
            await writer.drain()
    except TimeoutError:
        return False
    return True
