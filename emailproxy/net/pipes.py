"""The protocols of a session's two transports, until the login is decided."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from emailproxy.net.relay import DRAIN_S, Wire
from emailproxy.wire import events as ev

if TYPE_CHECKING:
    from emailproxy.net.session import Session

QUIET_S = 0.1  # a TLS client that has said nothing for so long has nothing on its way that a close would run into


def nothing() -> None:
    """There is no TLS, so there is no session of it."""


class Owner(Protocol):
    """Whose events a pipe's are: a session, as a rule."""

    def feed(self, event: ev.Event) -> None: ...

    def hold_client(self) -> None:
        """Whether the pipe's other side takes what is written to it may have changed."""


class Pipe(asyncio.Protocol):
    """Turns one side's transport into events, until the login is decided."""

    def __init__(self, session: Owner, data: Callable[[bytes], ev.Event], eof: ev.Event) -> None:
        self._session: Owner | None = session
        self._data = data
        self._eof = eof
        self.wire: Wire | None = None
        self.lost = False
        self.in_handshake = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = Wire(cast("asyncio.Transport", transport))  # uvloop's are not instances of it

    def data_received(self, data: bytes) -> None:
        if self._session is not None:
            self._session.feed(self._data(data))

    def eof_received(self) -> bool:
        self._end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self.wire is not None:
            self.wire.lost()
        self._end()

    def _end(self) -> None:
        """An end during the handshake is for whoever awaits the handshake to explain."""
        if self._session is not None and not self.in_handshake:
            self._session.feed(self._eof)

    def detach(self) -> None:
        """What still comes from this side is nobody's business any more."""
        self._session = None

    def pause_writing(self) -> None:
        self._set_write_paused(True)

    def resume_writing(self) -> None:
        self._set_write_paused(False)

    def _set_write_paused(self, paused: bool) -> None:
        assert self.wire is not None
        self.wire.write_paused = paused
        if self._session is not None:
            self._session.hold_client()


class ClientPipe(Pipe):
    """The client's side: the session begins with its connection, or with the TLS over it."""

    _session: Session | None

    def __init__(self, session: Session) -> None:
        super().__init__(session, ev.ClientData, ev.ClientEOF())
        self.ended = False
        self._early = bytearray()
        self._waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self._session is not None
        self._session.begin()

    def over(self, transport: asyncio.Transport) -> None:
        """This connection will be spoken over, but only once TLS stands: see `catch_up`."""
        self.wire = Wire(transport)
        self.wait_for_tls()

    def wait_for_tls(self) -> None:
        """What comes from now on waits for `catch_up`. asyncio hands on what stands behind a client's handshake before
        it tells us that the handshake is over."""
        self._waits = True
        self.in_handshake = True

    def catch_up(self) -> None:
        """TLS stands, and the session knows."""
        self._waits = False
        data = bytes(self._early)
        self._early.clear()
        if data:
            super().data_received(data)
        if self.ended or self.lost:
            self._end()

    def data_received(self, data: bytes) -> None:
        if self._waits:
            self._early += data
        else:
            super().data_received(data)

    def eof_received(self) -> bool:
        """The last words go out first: the session closes the transport. Over TLS that is not ours to choose."""
        self.ended = True
        if not self._waits:
            self._end()
        return self.wire is not None and not self.wire.is_tls and not self.in_handshake

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self._waits:
            self._end()


class ServerPipe(Pipe):
    """The server's side."""

    def __init__(self, session: Owner) -> None:
        super().__init__(session, ev.ServerData, ev.ServerEOF())
        self.spoke_plaintext = False
        self.keep_tls_session: Callable[[], None] = nothing
        """To be called once the server has spoken: the next handshake with it will be a short one."""


class Vestibule(asyncio.Protocol):
    """A connection to the server before its implicit TLS: it has nothing to say there."""

    def __init__(self, pipe: ServerPipe) -> None:
        self._pipe = pipe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._pipe.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._pipe.spoke_plaintext = True
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pipe.lost = True


class Goodbye(asyncio.Protocol):
    """A client that is being closed: our last words arrive, because we take what it still sends.

    A close over unread octets resets the connection, and the reset overtakes the words. So plaintext is closed halfway;
    TLS, which has no half, when the client has been quiet for a moment.
    """

    def __init__(self, wire: Wire, on_end: Callable[[], None]) -> None:
        self._wire = wire
        self._on_end = on_end
        self._quiet: asyncio.TimerHandle | None = None

    def start(self, *, client_ended: bool) -> None:
        transport = self._wire.transport
        transport.set_protocol(self)
        self._timer = asyncio.get_running_loop().call_later(DRAIN_S, transport.abort)
        if client_ended:
            transport.close()
        elif not transport.is_closing():
            self._wire.resume()
            if self._wire.is_tls:
                self._wait_for_quiet()
            else:
                self._end_stream()

    def _end_stream(self) -> None:
        try:
            self._wire.transport.write_eof()
        except OSError:  # the client reset the connection, and its transport does not know yet
            self._wire.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
            self._wait_for_quiet()

    def _wait_for_quiet(self) -> None:
        self._quiet = asyncio.get_running_loop().call_later(QUIET_S, self._wire.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        if self._quiet is not None:
            self._quiet.cancel()
        self._on_end()
