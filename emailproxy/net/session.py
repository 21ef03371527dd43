"""Drives one login dialogue over two transports: it performs effects and decides nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from emailproxy.errors import LoginRefused, ServerUnavailable
from emailproxy.net import outcome
from emailproxy.net.handshake import ClientLeft, HandshakeFailed, secure_client, secure_server
from emailproxy.net.pipes import ClientPipe, Goodbye, ServerPipe, Vestibule
from emailproxy.net.places import Place, limit_of
from emailproxy.net.relay import BUFFER_LIMIT, Relay
from emailproxy.wire import events as ev
from emailproxy.wire.imap import ImapDialogue
from emailproxy.wire.pop3 import Pop3Dialogue
from emailproxy.wire.smtp import SmtpDialogue

if TYPE_CHECKING:
    from emailproxy.config.model import Route
    from emailproxy.net.admission import Ticket
    from emailproxy.net.section import Section
    from emailproxy.wire.dialogue import Dialogue

log = logging.getLogger("emailproxy.net")

DIALOGUES: dict[str, type[Dialogue]] = {"IMAP": ImapDialogue, "POP": Pop3Dialogue, "SMTP": SmtpDialogue}
Work = Callable[[], Coroutine[Any, Any, ev.Event | None]]
GRACE_S = 15.0  # for the mail server, once a token came after the login's deadline


class TokenSource(Protocol):
    """What net/ needs of oauth/."""

    def route(self, login: ev.Login, visit: ev.Visit) -> Route:
        """Where this login goes. Returns at once.

        Raises:
            LoginRefused: nowhere.
        """

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


class Session:
    """One client's connection, from its greeting to its end."""

    def __init__(
        self,
        section: Section,
        visit: ev.Visit,
        local_tls: ev.LocalTls,
        ticket: Ticket,
        here: tuple[str, int],
        on_end: Callable[[Session], None],
    ) -> None:
        """`here` is our own end of the connection."""
        self._section = section
        self._shared = section.shared
        self._visit = visit
        self._ticket = ticket
        self._here = here
        self._on_end = on_end
        self._target = section.server.target
        self._local_tls = local_tls
        self._dialogue: ev.LoginDialogue = DIALOGUES[visit.protocol](section.terms(self._target, local_tls))
        self._tasks: set[asyncio.Task[None]] = set()
        self.client = ClientPipe(self)
        self._server: ServerPipe | None = None
        self._dial: asyncio.Task[None] | None = None
        self._place: Place | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._token_pending = False
        self._overdue = False
        self._asked_at_s = 0.0
        self._over = False
        self._relay: Relay | None = None

    @property
    def logged_in(self) -> bool:
        return self._relay is not None

    def begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._shared.limits.login_timeout_s, self._on_deadline)
        self.feed(ev.ClientConnected())

    def drain(self) -> None:
        """The proxy is shutting down."""
        if self._relay is not None:
            self._relay.stop()
        else:
            self.feed(ev.Draining())

    def abort(self) -> None:
        """Cuts both connections now."""
        for pipe in (self.client, self._server):
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
        wire = self.client.wire
        if self._over or wire is None or self.client.in_handshake:
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
                self._write(self.client, data)
            case ev.ToServer(data):
                self._write(self._server, data)
            case ev.Connect():
                self._drop_server()
                self._dial = self._start(partial(self._connect, ServerPipe(self)), ev.ServerFailed)
            case ev.StartTls(side, go_ahead):
                self._start_tls(side, go_ahead)
            case ev.NeedToken(login, rejected):
                self._token_pending = True
                if rejected is None:
                    self._asked_at_s = time.monotonic()
                self._start(partial(self._get_token, login, rejected), ev.TokenFailed)
            case ev.Learned(capabilities):
                assert self._target is not None
                self._shared.seen.learn(self._visit.protocol, self._target, capabilities)
            case ev.Refused(login, error):
                self._leave_place()
                outcome.refused(self._visit, self._here, login, error, self._took_ms)
                if login is not None:
                    self._section.tokens.refused(login, self._visit, error)
            case ev.Noted(text):
                log.warning("%s from %s: %s [session %s]", *self._who, text, self._visit.session)
            case ev.Relay():
                self._join(effect)
            case ev.Hangup(reason):
                self._hang_up(reason)

    def _write(self, pipe: ClientPipe | ServerPipe | None, data: bytes) -> None:
        if pipe is None or pipe.wire is None or pipe.in_handshake:
            return
        if not pipe.wire.transport.is_closing():
            pipe.wire.transport.write(data)

    def _start_tls(self, side: ev.Side, go_ahead: bytes) -> None:
        """The pause comes first: the ClientHello that answers our go-ahead is not for us to read."""
        secured = self.client if side is ev.Side.CLIENT else self._server
        assert secured is not None
        assert secured.wire is not None
        secured.wire.pause()
        self._write(secured, go_ahead)
        if isinstance(secured, ClientPipe):
            secured.wait_for_tls()
            self._start(self._secure_client, lambda _: ev.ClientEOF())
        else:
            self._dial = self._start(partial(self._secure, secured), ev.ServerFailed)

    def _start(self, work: Work, failed: Callable[[LoginRefused], ev.Event]) -> asyncio.Task[None]:
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
        return task

    async def _get_token(self, login: ev.Login, rejected: str | None) -> ev.Event:
        tokens = self._section.tokens
        try:
            if rejected is not None:
                return ev.TokenReady(await tokens.token(login, self._visit, rejected))
            self._leave_place()
            route = tokens.route(login, self._visit)
            self._follow(route, login)
            credential = await tokens.token(login, self._visit)
            await self._take_place(route)
            return ev.TokenReady(credential)
        finally:
            self._token_pending = False
            if self._overdue and not self._over:
                self._overdue = False
                self._deadline = asyncio.get_running_loop().call_later(GRACE_S, self._on_deadline)

    def _follow(self, route: Route, login: ev.Login) -> None:
        """Where the port has no server of its own, the login names it."""
        section = self._section
        target = section.target_of(route, login)
        if section.server.target is None:
            self._target = target
            self.feed(ev.Routed(section.terms(target, self._local_tls)))

    async def _take_place(self, route: Route) -> None:
        limits, target, protocol = self._shared.limits, self._target, self._visit.protocol
        assert target is not None
        most = limit_of(protocol, route, self._section.server.max_connections_per_account, limits, target)
        self._place = await self._shared.places.take(route.account, protocol, most, limits.login_queue_s)

    def _leave_place(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.leave()

    async def _connect(self, pipe: ServerPipe) -> ev.Event:
        target = self._target
        assert target is not None
        sock = await self._shared.dialer.connect(target.address, target.port)
        if self._over:
            sock.close()
            return ev.ServerEOF()
        self._server = pipe
        loop = asyncio.get_running_loop()
        if target.starttls:
            await loop.create_connection(lambda: pipe, sock=sock)
        else:
            await loop.create_connection(lambda: Vestibule(pipe), sock=sock)
            await secure_server(pipe, self._section.context, target.address)
        return ev.ServerConnected()

    async def _secure(self, pipe: ServerPipe) -> ev.Event:
        assert self._target is not None
        await secure_server(pipe, self._section.context, self._target.address)
        return ev.TlsStarted(ev.Side.SERVER)

    async def _secure_client(self) -> ev.Event | None:
        certificate = self._section.certificate
        assert certificate is not None
        try:
            await secure_client(self.client, certificate.context)
        except ClientLeft:
            return ev.ClientEOF()
        except HandshakeFailed as error:
            self._section.complaints.warn("%s from %s: %s [session %s]", *self._who, error, self._visit.session)
            return ev.ClientEOF()
        self.feed(ev.TlsStarted(ev.Side.CLIENT))
        self.client.catch_up()
        return None

    # ---- endings

    def _join(self, effect: ev.Relay) -> None:
        client, server = self.client.wire, None if self._server is None else self._server.wire
        assert client is not None
        assert server is not None
        self._finish_login()
        self._ticket.decided()
        outcome.accepted(self._visit, self._here, effect.login, self._took_ms)
        self._start(partial(self._section.tokens.accepted, effect.login, self._visit), ev.TokenFailed)
        self._relay = Relay(client, server, self._end)
        self._relay.start(effect.to_client, effect.to_server)

    def _hang_up(self, reason: str) -> None:
        log.debug("%s from %s: closing, %s [session %s]", *self._who, reason, self._visit.session)
        self._finish_login()
        for task in self._tasks:
            task.cancel()
        self._drop_server()
        self._leave_place()
        client, wire = self.client, self.client.wire
        client.detach()
        assert wire is not None
        if client.in_handshake:  # there is nobody to hear us
            wire.transport.abort()
        if client.lost or client.in_handshake:
            self._end()
        else:
            Goodbye(wire, self._end).start(client_ended=client.ended)

    def _finish_login(self) -> None:
        self._over = True
        if self._deadline is not None:
            self._deadline.cancel()

    def _drop_server(self) -> None:
        pipe, self._server = self._server, None
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.cancel()
        if pipe is not None:
            pipe.detach()
            if pipe.wire is not None:
                pipe.wire.finish()

    def _end(self) -> None:
        self._leave_place()
        self._ticket.leave()
        self._on_end(self)

    # ---- the log

    @property
    def _who(self) -> tuple[str, str]:
        return self._visit.protocol, self._visit.address

    @property
    def _took_ms(self) -> float:
        return (time.monotonic() - self._asked_at_s) * 1000 if self._asked_at_s else 0.0
