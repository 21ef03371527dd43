"""What every accepted connection meets first: who is it, may it come in, and does it speak TLS?

In this order: a PROXY protocol header, where one is due; the limits and networks; TLS from the first octet. What came
of the client's octets by then is handed on to whoever takes over, TLS or session.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from emailproxy.errors import ProtocolError
from emailproxy.net.admission import NotAdmitted, Ticket, is_loopback, plain_address, within
from emailproxy.net.handshake import ClientLeft, secure_client
from emailproxy.net.session import DIALOGUES, Session
from emailproxy.wire.events import LocalTls, Visit
from emailproxy.wire.proxyprotocol import Header

if TYPE_CHECKING:
    from emailproxy.net.listener import Listener

HEADER_S = 10.0  # for a PROXY protocol header: the proxy sends it at once, so this is for a network that stalls
# Our greeting waits for so long, so that a client that begins with TLS shows itself. Others hear it that much later,
# once a connection, on ports that speak both. Programs read their trust store between connect and ClientHello: 50 ms
# at rest, several times that on a busy machine; from far away there is a round trip in between, too.
HELLO_LOCAL_S = 0.3
HELLO_S = 0.5
TLS_HANDSHAKE = b"\x16"  # RFC 8446 section 5.1: the first octet of a ClientHello's record


class Door(asyncio.Protocol):
    """One connection, from accept to its session."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._section = listener.section
        self._early = b""
        self._heard = False
        self._header: Header | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ticket: Ticket | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._decided = False

    # ---- the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not instances of it
        self._peer = self._address = plain_address(transport.get_extra_info("peername"))
        self._listener.arrive(self)
        try:
            is_passed_on = within(self._peer, self._section.server.proxy_protocol_from)
            self._ticket = self._section.shared.doorman.admit(None if is_passed_on else self._address)
            self._ticket.give_way = self.cut
            if is_passed_on:
                self._header = Header()
                self._wait(HEADER_S, self._no_header)
            else:
                self._recognised()
        except NotAdmitted as reason:
            self._turn_away(str(reason))

    def data_received(self, data: bytes) -> None:
        self._heard = True
        header = self._header
        if header is None:
            self._early += data
            if not self._decided:
                self._decide()
            return
        try:
            source = header.feed(data)
            if source is None:
                return
            self._header = None
            self._early = source.rest
            self._address = source.address or self._peer
            self._recognised()
        except ProtocolError as error:
            self._give_up(str(error))
        except NotAdmitted as reason:
            self._turn_away(str(reason))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._heard and self._header is not None and not self._decided:  # else a load balancer's health check
            self._complain("the connection ended within the PROXY protocol header")
        if self._handshake is None:
            self._leave()
        else:
            self._handshake.cancel()

    # ---- decisions

    def _recognised(self) -> None:
        """The client's address is known.

        Raises:
            NotAdmitted: it may not come in.
        """
        server = self._section.server
        assert self._ticket is not None
        if server.allow_from and not within(self._address, server.allow_from):
            raise NotAdmitted("your address may not use this port (allow_from)")
        self._ticket.known_as(self._address)
        if self._section.is_tls_only:
            self._secure()
            return
        self._local_tls = self._section.local_tls(self._peer, on_loopback=self._listener.on_loopback)
        if self._section.certificate is not None and not self._early:
            self._wait(HELLO_LOCAL_S if is_loopback(self._address) else HELLO_S, self._admit)
        else:
            self._decide()

    def _decide(self) -> None:
        """By the client's first octet, if there is one."""
        if self._section.certificate is not None and self._early.startswith(TLS_HANDSHAKE):
            self._secure()
        else:
            self._admit()

    def _session(self, local_tls: LocalTls) -> Session:
        server, listener = self._section.server, self._listener
        assert self._ticket is not None
        may_set_first = listener.may_set_first_password(server)
        visit = Visit(secrets.token_hex(4), server.protocol, self._address, may_set_first, server.section)
        here = self._transport.get_extra_info("sockname") or ("", server.local_port)
        return Session(self._section, visit, local_tls, self._ticket, here[:2], listener.forget)

    def _admit(self) -> None:
        """The session begins in plaintext."""
        self._settle()
        session = self._session(self._local_tls)
        self._listener.enter(self, session)
        transport, protocol = self._transport, session.client
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._early:
            protocol.data_received(self._early)

    def _secure(self) -> None:
        self._settle()
        self._transport.pause_reading()
        session = self._session(LocalTls.ACTIVE)
        session.client.over(self._transport)
        certificate = self._section.certificate
        assert certificate is not None
        hands = secure_client(session.client, certificate.context, self._take_early)
        self._handshake = asyncio.get_running_loop().create_task(hands)
        self._handshake.add_done_callback(lambda shaken: self._shaken(shaken, session))

    def _shaken(self, handshake: asyncio.Task[None], session: Session) -> None:
        """The session begins over TLS, if there is any."""
        if handshake.cancelled() or (error := handshake.exception()) is not None:
            if not handshake.cancelled() and not isinstance(error, ClientLeft):
                self._complain(str(error))
            self._leave()
            return
        self._listener.enter(self, session)
        session.begin()
        session.client.catch_up()

    def _take_early(self) -> bytes:
        early, self._early = self._early, b""
        return early

    # ---- endings

    def cut(self) -> None:
        """The listener closes, or somebody else needs the place."""
        self._settle()
        if self._handshake is not None:
            self._handshake.cancel()
        self._transport.abort()

    def _no_header(self) -> None:
        self._give_up(f"no PROXY protocol header within {HEADER_S:.0f} s, which this port expects from this sender")

    def _give_up(self, reason: str) -> None:
        self._settle()
        self._complain(f"closed: {reason}")
        self._transport.abort()

    def _turn_away(self, reason: str) -> None:
        """Where the port speaks TLS only, the words would cost a handshake: the connection is closed without."""
        self._settle()
        self._complain(f"turned away: {reason}")
        if not self._section.is_tls_only:
            self._transport.write(DIALOGUES[self._section.server.protocol].turned_away(reason))
        self._transport.close()

    def _complain(self, text: str) -> None:
        server = self._section.server
        self._section.complaints.warn("%s from %s at [%s]: %s", server.protocol, self._address, server.section, text)

    def _leave(self) -> None:
        self._settle()
        if self._ticket is not None:
            self._ticket.leave()
        self._listener.leave(self)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, then)

    def _settle(self) -> None:
        self._decided = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
