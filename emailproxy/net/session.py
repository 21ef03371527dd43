"""Drives one login dialogue over two transports: it performs effects and decides nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from emailproxy.errors import LoginRefused, ServerUnavailable
from emailproxy.net import outcome
from emailproxy.net.handshake import ClientLeft, HandshakeFailed, connect_server, secure_client, secure_server
from emailproxy.net.pipes import ClientPipe, Goodbye, ServerPipe
from emailproxy.net.places import Place, limit_of
from emailproxy.net.relay import BUFFER_LIMIT, Relay
from emailproxy.wire import events as ev
from emailproxy.wire.imap import ImapDialogue
from emailproxy.wire.pop3 import Pop3Dialogue
from emailproxy.wire.smtp import SmtpDialogue

if TYPE_CHECKING:
    from emailproxy.config.model import Route
    from emailproxy.net.admission import Ticket
    from emailproxy.net.draining import Patience
    from emailproxy.net.section import Section
    from emailproxy.wire.dialogue import Dialogue

log = logging.getLogger("emailproxy.net")

DIALOGUES: dict[str, type[Dialogue]] = {"IMAP": ImapDialogue, "POP": Pop3Dialogue, "SMTP": SmtpDialogue}
Work = Callable[[], Coroutine[Any, Any, ev.Event | None]]
GRACE_S = 15.0  # for the mail server, once a token came after the login's deadline


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
        self._routed = self._target is None
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

    @property
    def is_busy(self) -> bool:
        """Whether octets are relayed, or could be at any moment."""
        return self._relay is not None and self._relay.is_busy

    def begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._shared.limits.login_timeout_s, self._on_deadline)
        self._ticket.give_way = self._give_way
        self.feed(ev.ClientConnected())

    def drain(self, patience: Patience) -> None:
        """The proxy is shutting down: what is under way comes to its end, but no login begins or is waited for."""
        if self._relay is not None:
            self._relay.drain(patience)
        else:
            self.feed(ev.Draining())
            asyncio.get_running_loop().call_later(patience.goodbye_s, self.abort)

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

    def _give_way(self) -> None:
        """The doorman needs the place: no wait for a client that says nothing to take leave, as in other endings."""
        self.feed(ev.Deadline())
        wire = self.client.wire
        assert wire is not None
        if wire.is_tls:
            wire.transport.abort()
        else:
            wire.transport.close()

    # ---- effects out

    def _perform(self, effect: ev.Effect) -> None:
        match effect:
            case ev.ToClient(data):
                self._write(self.client, data)
            case ev.ToServer(data):
                self._write(self._server, data)
            case ev.Connect(anew):
                self._drop_server()
                self._dial = self._start(partial(self._connect, anew), ev.ServerFailed)
            case ev.StartTls(side, go_ahead):
                self._start_tls(side, go_ahead)
            case ev.NeedToken(login, rejected):
                self._ticket.asking = True
                if rejected is None:
                    self._asked_at_s = time.monotonic()
                    # Behind the dial: the network is at work while we are.
                    asyncio.get_running_loop().call_soon(self._log_in, login)
                else:
                    self._wait_for_token(login, rejected)
            case ev.Learned(capabilities):
                assert self._target is not None
                self._shared.seen.learn(self._visit.protocol, self._target, capabilities)
            case ev.Refused(login, error):
                self._ticket.asking = False
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
                event = failed(error.with_traceback(None))  # it would keep this frame, and so the session
            except MemoryError:
                event = failed(ServerUnavailable("emailproxy has no memory left for this login; try again later"))
            except Exception:
                log.exception("%s from %s: a fault of emailproxy [session %s]", *self._who, self._visit.session)
                event = failed(ServerUnavailable("emailproxy met a fault of its own; see its log"))
            if event is not None:
                self.feed(event)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _log_in(self, login: ev.Login) -> None:
        if self._over:
            return
        credential = self._token_at_once(login)
        if credential is None:
            self._wait_for_token(login, None)
        else:
            self.feed(ev.TokenReady(credential))

    def _wait_for_token(self, login: ev.Login, rejected: str | None) -> None:
        self._token_pending = True
        self._start(partial(self._get_token, login, rejected), ev.TokenFailed)

    def _token_at_once(self, login: ev.Login) -> ev.Credential | None:
        """The warm way, without a task; None where something has to be waited for, or to be said."""
        tokens = self._section.tokens
        if self._routed:
            return None
        self._leave_place()
        try:
            route = tokens.route(login, self._visit)
            credential = tokens.at_once(login, self._visit)
        except LoginRefused:
            return None
        if credential is not None:
            self._place = self._shared.places.take_at_once(route.account, self._visit.protocol, self._most(route))
        return credential if self._place is not None else None

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
        if self._routed:
            self._target = target
            self.feed(ev.Routed(section.terms(target, self._local_tls)))

    def _most(self, route: Route) -> int | None:
        assert self._target is not None
        of_section = self._section.server.max_connections_per_account
        return limit_of(self._visit.protocol, route, of_section, self._shared.limits, self._target)

    async def _take_place(self, route: Route) -> None:
        patience_s = self._shared.limits.login_queue_s
        most = self._most(route)
        self._place = await self._shared.places.take(route.account, self._visit.protocol, most, patience_s)

    def _leave_place(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.leave()

    async def _connect(self, anew: bool) -> ev.Event:
        ahead = None if anew else self._section.prewarmed.take()
        if ahead is not None:
            self._server = ahead.hand_over(self)
            return ev.ServerConnected(ahead.ready)
        target = self._target
        assert target is not None
        sock = await self._shared.dialer.connect(target.address, target.port)
        if self._over:
            sock.close()
            return ev.ServerEOF()
        self._server = ServerPipe(self)
        await connect_server(self._server, sock, target, self._section.context)
        return ev.ServerConnected()

    async def _secure(self, pipe: ServerPipe) -> ev.Event:
        assert self._target is not None
        await secure_server(pipe, self._section.context, self._target.address, self._target.port)
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
        assert self._server is not None
        client, server = self.client.wire, self._server.wire
        assert client is not None
        assert server is not None
        self._finish_login()
        self._server.keep_tls_session()
        self._ticket.decided()
        # When our reply is on its way: nobody waits for the log.
        asyncio.get_running_loop().call_soon(outcome.accepted, self._visit, self._here, effect.login, self._took_ms)
        tokens = self._section.tokens
        if not tokens.is_settled(effect.login, self._visit):
            self._start(partial(tokens.accepted, effect.login, self._visit), ev.TokenFailed)
        self._relay = Relay(client, server, self._end)
        self._relay.start(effect.to_client, effect.to_server)
        self._let_go()

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
        if self._relay is None:
            self._let_go()
        self._relay = None

    def _let_go(self) -> None:
        """Whatever only the login needed, and who refers to us: sessions stand for days, and without this, TLS would
        stay until the garbage collector comes by."""
        self.client.detach()
        if self._server is not None:
            self._server.detach()
        self._dial = self._deadline = None
        self._dialogue.close()
        del self._dialogue

    # ---- the log

    @property
    def _who(self) -> tuple[str, str]:
        return self._visit.protocol, self._visit.address

    @property
    def _took_ms(self) -> float:
        return (time.monotonic() - self._asked_at_s) * 1000 if self._asked_at_s else 0.0
