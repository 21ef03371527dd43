"""The protocols of a session's two transports, until the login is decided."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from emailproxy.net.relay import DRAIN_S, Wire
from emailproxy.wire import events as ev

if TYPE_CHECKING:
    from emailproxy.net.session import Session


class Pipe(asyncio.Protocol):
    """Turns one side's transport into events, until the login is decided."""

    def __init__(self, session: Session, data: Callable[[bytes], ev.Event], eof: ev.Event) -> None:
        self._session: Session | None = session
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
    """The client's side: the session begins with its connection."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, ev.ClientData, ev.ClientEOF())
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self._session is not None
        self._session.begin()

    def eof_received(self) -> bool:
        """The last words go out first: the session closes the transport."""
        self.ended = True
        self._end()
        return True


class ServerPipe(Pipe):
    """The server's side."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, ev.ServerData, ev.ServerEOF())
        self.spoke_plaintext = False


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
    """A client that is being closed: our last words arrive, because we take what it still sends."""

    def __init__(self, wire: Wire, on_end: Callable[[], None]) -> None:
        self._wire = wire
        self._on_end = on_end

    def start(self, *, client_ended: bool) -> None:
        transport = self._wire.transport
        transport.set_protocol(self)
        if client_ended:
            transport.close()
        elif not transport.is_closing():
            self._wire.resume()
            transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(DRAIN_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._on_end()
