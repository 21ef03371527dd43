"""After login: octets both ways, flow control, nothing else.

A reader that is slow on one side holds the other side back, so memory stays flat. Over TLS there is no half-close:
after the client's end of stream the server goes on being relayed until it closes, or is idle for 30 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from emailproxy.net.draining import Patience, Watch

BUFFER_LIMIT = 64 * 1024  # octets, both for reading and for writing
IDLE_AFTER_EOF_S = 30.0  # a server that says nothing for so long after the client's end of stream is left
DRAIN_S = 5.0  # a peer that takes none of what is left for so long is cut off


class Wire:
    """One connection: the transport to use, and whether it may be read from."""

    __slots__ = ("_lost", "_reading", "_timer", "is_tls", "transport", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.is_tls = False
        self.write_paused = False
        self._reading = True
        self._lost = False
        self._timer: asyncio.TimerHandle | None = None
        self._bound(transport)

    def wrap(self, tls: asyncio.Transport) -> None:
        """TLS now runs over what was the transport."""
        self.transport = tls
        self.is_tls = True
        self._reading = True
        self._bound(tls)

    @property
    def unsent(self) -> int:
        """Octets that wait for the peer."""
        return self.transport.get_write_buffer_size()

    def _bound(self, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=BUFFER_LIMIT)

    def pause(self) -> None:
        """Stops reading."""
        if self._reading and not self.transport.is_closing():
            self._reading = False
            self.transport.pause_reading()

    def resume(self) -> None:
        """Reads on."""
        if not self._reading:
            self._reading = True
            self.transport.resume_reading()

    def finish(self) -> None:
        """Sends what is written, then closes (over TLS with close_notify); a peer that takes nothing is cut off."""
        if not self.transport.is_closing():
            self.transport.close()
        if self._timer is None and not self._lost:
            self._watch_drain(self.unsent)

    def lost(self) -> None:
        """It is closed."""
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()

    def _watch_drain(self, left: int) -> None:
        self._timer = asyncio.get_running_loop().call_later(DRAIN_S, self._check_drain, left)

    def _check_drain(self, left_before: int) -> None:
        left = self.unsent
        if left and left < left_before:
            self._watch_drain(left)
        else:
            self.transport.abort()


class Relay:
    """Two wires joined. `on_end` is called once, when both are closed."""

    __slots__ = ("_client", "_on_end", "_open", "_server", "_watch", "spoke_last")

    def __init__(self, client: Wire, server: Wire, on_end: Callable[[], None]) -> None:
        self._client = ClientEnd(self, client, server)
        self._server = ServerEnd(self, server, client)
        self._on_end = on_end
        self._open = 2
        self._watch: Watch | None = None
        self.spoke_last: End = self._server

    @property
    def wires(self) -> tuple[Wire, Wire]:
        """The client's and the server's."""
        return self._client.wire, self._server.wire

    @property
    def is_ending(self) -> bool:
        """Whether a side is closed; the other one follows."""
        return self._open < 2 or any(wire.transport.is_closing() for wire in self.wires)

    @property
    def is_busy(self) -> bool:
        """Whether there is, or may be, something to relay."""
        return not self.is_ending or any(wire.unsent for wire in self.wires)

    @property
    def awaits_answer(self) -> bool:
        """Whether the client spoke last."""
        return self.spoke_last is self._client

    def start(self, to_client: bytes, to_server: bytes) -> None:
        """Joins the wires; the leftovers of the login go first."""
        client, server = self.wires
        client.transport.set_protocol(self._client)
        server.transport.set_protocol(self._server)
        if client.write_paused:
            server.pause()
        client.resume()
        client.transport.write(to_client)
        if to_server:
            self.spoke_last = self._client
            server.transport.write(to_server)

    def closed(self) -> None:
        self._open -= 1
        if self._open == 0:
            if self._watch is not None:
                self._watch.cancel()
            self._on_end()
            # Its ends refer to it: without this, their TLS would stay until the garbage collector comes by.
            del self._client, self._server, self.spoke_last, self._watch

    def drain(self, patience: Patience) -> None:
        """Ends it as soon as it is idle: the server stops."""
        watch = self._watched()
        watch.remember()
        watch.begin(patience)

    def half_closed(self) -> None:
        """The client has ended its stream: the server is relayed until it closes, or is idle."""
        if self._watch is None:
            self._watched().begin(Patience(IDLE_AFTER_EOF_S, IDLE_AFTER_EOF_S))

    def _watched(self) -> Watch:
        if self._watch is None:
            watch = self._watch = Watch(self)
            self._client.tell(watch.heard)
            self._server.tell(watch.heard)
        return self._watch

    def stop(self) -> None:
        """Sends what is written, and closes both."""
        for wire in self.wires:
            wire.finish()

    def abort(self) -> None:
        """Cuts both."""
        for wire in self.wires:
            wire.transport.abort()


class End(asyncio.Protocol):
    """One side of a relay: what it receives is written to the other side."""

    __slots__ = ("_write", "other", "relay", "wire")

    def __init__(self, relay: Relay, wire: Wire, other: Wire) -> None:
        self.relay = relay
        self.wire = wire
        self.other = other
        self._write = other.transport.write

    def tell(self, heard: Callable[[], None]) -> None:
        """Says of every chunk that it comes."""
        write = self.other.transport.write

        def tell_and_write(data: bytes | bytearray | memoryview) -> None:
            heard()
            write(data)

        self._write = tell_and_write

    def data_received(self, data: bytes) -> None:
        self.relay.spoke_last = self
        self._write(data)

    def pause_writing(self) -> None:
        self.wire.write_paused = True
        self.other.pause()

    def resume_writing(self) -> None:
        self.wire.write_paused = False
        self.other.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self.wire.lost()
        self.other.finish()
        self.relay.closed()


class ServerEnd(End):
    """The mail server's side: when it ends, the client gets what is left and is closed."""

    __slots__ = ()

    def eof_received(self) -> bool:
        self.other.finish()
        return False


class ClientEnd(End):
    """The mail client's side: it may end its stream and go on reading, but not over TLS, which is then closed."""

    __slots__ = ()

    def eof_received(self) -> bool:
        if self.wire.is_tls:
            self.other.finish()
            return False
        self.relay.half_closed()
        return True
