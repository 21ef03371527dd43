"""Drives one login dialogue over two transports: it performs effects and decides nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from emailproxy.errors import LoginRefused, ServerUnavailable
from emailproxy.net.pipes import ClientPipe, Goodbye, ServerPipe, Vestibule
from emailproxy.net.relay import BUFFER_LIMIT, Relay
from emailproxy.net.tls import NO_TLS, client_context, explain
from emailproxy.wire import events as ev
from emailproxy.wire.imap import ImapDialogue
from emailproxy.wire.pop3 import Pop3Dialogue
from emailproxy.wire.smtp import SmtpDialogue

if TYPE_CHECKING:
    import ssl

    from emailproxy.config.model import Server
    from emailproxy.net.dial import Dialer
    from emailproxy.wire.dialogue import Dialogue

log = logging.getLogger("emailproxy.net")

DIALOGUES: dict[str, type[Dialogue]] = {"IMAP": ImapDialogue, "POP": Pop3Dialogue, "SMTP": SmtpDialogue}
DEFAULT_EHLO_NAME = "[127.0.0.1]"
HANDSHAKE_TIMEOUT_S = 10.0
Work = Callable[[], Coroutine[Any, Any, ev.Event | None]]
GRACE_S = 15.0  # for the mail server, once a token came after the login's deadline


class TokenSource(Protocol):
    """What net/ needs of oauth/."""

    async def token(self, login: ev.Login, visit: ev.Visit, rejected: str | None = None) -> ev.Credential:
        """What to log in upstream with.

        Raises:
            LoginRefused: this login does not go ahead.
        """

    async def accepted(self, login: ev.Login, visit: ev.Visit) -> None:
        """The mail server took the login."""

    def refused(self, login: ev.Login, visit: ev.Visit, error: LoginRefused) -> None:
        """The client was told that its login does not go ahead. Returns at once."""

    def advise(self, text: str) -> ev.Advice | None:
        """What is known about a mail server's refusal."""


@dataclass
class Upstream:
    """A mail server as all sessions of one listening section see it."""

    server: Server
    dialer: Dialer
    tokens: TokenSource
    login_timeout_s: float
    seen: ev.Capabilities | None = None

    @property
    def terms(self) -> ev.Terms:
        server = self.server
        return ev.Terms(
            starttls=server.server_starttls,
            seen=self.seen,
            host=server.server_address,
            port=server.server_port,
            ehlo_name=server.ehlo_name or DEFAULT_EHLO_NAME,
            advise=self.tokens.advise,
        )

    @property
    def context(self) -> ssl.SSLContext:
        return client_context(self.server.ca_file)


class Session:
    """One client's connection, from its greeting to its end."""

    def __init__(self, upstream: Upstream, visit: ev.Visit, on_end: Callable[[Session], None]) -> None:
        self._upstream = upstream
        self._visit = visit
        self._on_end = on_end
        self._dialogue: ev.LoginDialogue = DIALOGUES[visit.protocol](upstream.terms)
        self._tasks: set[asyncio.Task[None]] = set()
        self._client = ClientPipe(self)
        self._server: ServerPipe | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._token_pending = False
        self._overdue = False
        self._asked_at_s = 0.0
        self._over = False
        self._relay: Relay | None = None

    @property
    def protocol(self) -> asyncio.Protocol:
        """For the client's transport."""
        return self._client

    def begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._upstream.login_timeout_s, self._on_deadline)
        self.feed(ev.ClientConnected())

    def drain(self) -> None:
        """The proxy is shutting down."""
        if self._relay is not None:
            self._relay.stop()
        else:
            self.feed(ev.Draining())

    def abort(self) -> None:
        """Cuts both connections now."""
        for pipe in (self._client, self._server):
            if pipe is not None and pipe.wire is not None:
                pipe.wire.transport.abort()

    # ---- events in

    def feed(self, event: ev.Event) -> None:
        if self._over:
            return
        for effect in self._dialogue.handle(event):
            self._perform(effect)
        self.hold_client()

    def hold_client(self) -> None:
        """A client waits while its octets wait for the login, or while it does not read our replies."""
        wire = self._client.wire
        if self._over or wire is None:
            return
        if wire.write_paused or self._dialogue.backlog > BUFFER_LIMIT:
            wire.pause()
        else:
            wire.resume()

    def _on_deadline(self) -> None:
        if self._token_pending:
            self._overdue = True
        else:
            self.feed(ev.Deadline())

    # ---- effects out

    def _perform(self, effect: ev.Effect) -> None:
        match effect:
            case ev.ToClient(data):
                self._write(self._client, data)
            case ev.ToServer(data):
                self._write(self._server, data)
            case ev.Connect():
                self._drop_server()
                self._start(partial(self._connect, ServerPipe(self)), ev.ServerFailed)
            case ev.StartTls():
                secured = self._server
                assert secured is not None
                assert secured.wire is not None
                secured.wire.pause()
                self._start(partial(self._secure, secured), ev.ServerFailed)
            case ev.NeedToken(login, rejected):
                self._token_pending = True
                if rejected is None:
                    self._asked_at_s = time.monotonic()
                self._start(partial(self._get_token, login, rejected), ev.TokenFailed)
            case ev.Learned(capabilities):
                self._upstream.seen = capabilities
            case ev.Refused(login, error):
                self._log_outcome(login, "refused", f": {error}")
                if login is not None:
                    self._upstream.tokens.refused(login, self._visit, error)
            case ev.Noted(text):
                log.warning("%s from %s: %s [session %s]", *self._who, text, self._visit.session)
            case ev.Relay():
                self._join(effect)
            case ev.Hangup(reason):
                self._hang_up(reason)

    def _write(self, pipe: ClientPipe | ServerPipe | None, data: bytes) -> None:
        if pipe is not None and pipe.wire is not None and not pipe.wire.transport.is_closing():
            pipe.wire.transport.write(data)

    def _start(self, work: Work, failed: Callable[[LoginRefused], ev.Event]) -> None:
        """Runs `work` beside the events; its result, if any, is one."""

        async def run() -> None:
            try:
                event = await work()
            except LoginRefused as error:
                event = failed(error)
            except Exception:
                log.exception("%s from %s: a fault of emailproxy [session %s]", *self._who, self._visit.session)
                event = failed(ServerUnavailable("emailproxy met a fault of its own; see its log"))
            if event is not None:
                self.feed(event)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _get_token(self, login: ev.Login, rejected: str | None) -> ev.Event:
        try:
            return ev.TokenReady(await self._upstream.tokens.token(login, self._visit, rejected))
        finally:
            self._token_pending = False
            if self._overdue and not self._over:
                self._overdue = False
                self._deadline = asyncio.get_running_loop().call_later(GRACE_S, self._on_deadline)

    async def _connect(self, pipe: ServerPipe) -> ev.Event:
        server = self._upstream.server
        sock = await self._upstream.dialer.connect(server.server_address, server.server_port)
        if self._over:
            sock.close()
            return ev.ServerEOF()
        self._server = pipe
        loop = asyncio.get_running_loop()
        if server.server_starttls:
            await loop.create_connection(lambda: pipe, sock=sock)
        else:
            await loop.create_connection(lambda: Vestibule(pipe), sock=sock)
            await self._handshake(pipe)
        return ev.ServerConnected()

    async def _secure(self, pipe: ServerPipe) -> ev.Event:
        await self._handshake(pipe)
        return ev.TlsStarted(ev.Side.SERVER)

    async def _handshake(self, pipe: ServerPipe) -> None:
        """TLS over a plain connection, whose transport `Wire` keeps: uvloop drops what a paused TLS reader has buffered
        when the peer closes, unless the raw transport is paused with it."""
        wire, host = pipe.wire, self._upstream.server.server_address
        assert wire is not None
        pipe.in_handshake = True
        told = NO_TLS.format(host)
        try:
            tls = await asyncio.get_running_loop().start_tls(
                wire.transport,
                pipe,
                self._upstream.context,
                server_hostname=host,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            )
        except OSError as error:
            pipe.detach()
            wire.transport.abort()
            raise ServerUnavailable(told if pipe.spoke_plaintext else explain(error, host)) from None
        if tls is None or pipe.lost:
            closed = f"{host} closed the connection during the TLS handshake"
            raise ServerUnavailable(told if pipe.spoke_plaintext else closed)
        pipe.in_handshake = False
        wire.wrap(tls)

    # ---- endings

    def _join(self, effect: ev.Relay) -> None:
        client, server = self._client.wire, None if self._server is None else self._server.wire
        assert client is not None
        assert server is not None
        self._finish_login()
        self._log_outcome(effect.login, "accepted", "")
        self._start(partial(self._upstream.tokens.accepted, effect.login, self._visit), ev.TokenFailed)
        self._relay = Relay(client, server, lambda: self._on_end(self))
        self._relay.start(effect.to_client, effect.to_server)

    def _hang_up(self, reason: str) -> None:
        log.debug("%s from %s: closing, %s [session %s]", *self._who, reason, self._visit.session)
        self._finish_login()
        for task in self._tasks:
            task.cancel()
        self._drop_server()
        self._client.detach()
        assert self._client.wire is not None
        if self._client.lost:
            self._on_end(self)
        else:
            Goodbye(self._client.wire, lambda: self._on_end(self)).start(client_ended=self._client.ended)

    def _finish_login(self) -> None:
        self._over = True
        if self._deadline is not None:
            self._deadline.cancel()

    def _drop_server(self) -> None:
        pipe, self._server = self._server, None
        if pipe is not None:
            pipe.detach()
            if pipe.wire is not None:
                pipe.wire.finish()

    # ---- the log

    @property
    def _who(self) -> tuple[str, str]:
        return self._visit.protocol, self._visit.address

    def _log_outcome(self, login: ev.Login | None, outcome: str, why: str) -> None:
        took_ms = (time.monotonic() - self._asked_at_s) * 1000 if self._asked_at_s else 0.0
        account = "unreadable user name" if login is None else login.user
        level = logging.INFO if outcome == "accepted" else logging.WARNING
        text = "%s login %s for %s from %s, %.0f ms [session %s]%s"
        log.log(
            level, text, self._visit.protocol, outcome, account, self._visit.address, took_ms, self._visit.session, why
        )
