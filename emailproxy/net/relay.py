"""After login: octets both ways, flow control, nothing else.

A reader that is slow on one side holds the other side back, so memory stays flat. Over TLS there is no half-close:
after the client's end of stream the server goes on being relayed until it closes, or is idle for 30 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

BUFFER_LIMIT = 64 * 1024  # octets, both for reading and for writing
IDLE_AFTER_EOF_S = 30.0  # a server that says nothing for so long after the client's end of stream is left
DRAIN_S = 5.0  # a peer that takes none of what is left for so long is cut off


class Wire:
    """One connection: the transport to use, and the raw one below its TLS, if it has any."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._raw: asyncio.Transport | None = None
        self.write_paused = False
        self._reading = True
        self._bound(transport)

    def wrap(self, tls: asyncio.Transport) -> None:
        """TLS now runs over what was the transport."""
        self._raw, self.transport = self.transport, tls
        self._reading = True
        self._bound(tls)

    @property
    def is_tls(self) -> bool:
        return self._raw is not None

    @property
    def unsent(self) -> int:
        """Octets that wait for the peer, encrypted ones included."""
        raw = 0 if self._raw is None else self._raw.get_write_buffer_size()
        return self.transport.get_write_buffer_size() + raw

    def _bound(self, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=BUFFER_LIMIT)
        set_read_limits = getattr(transport, "set_read_buffer_limits", None)
        if set_read_limits is not None:
            set_read_limits(high=BUFFER_LIMIT)

    def pause(self) -> None:
        """Stops reading. Both layers: a paused TLS reader over a live raw one loses its tail at the peer's FIN."""
        if self._reading and not self.transport.is_closing():
            self._reading = False
            self.transport.pause_reading()
            if self._raw is not None:
                self._raw.pause_reading()

    def resume(self) -> None:
        """Reads on; TLS first, for what it holds decrypted."""
        if not self._reading:
            self._reading = True
            self.transport.resume_reading()
            if self._raw is not None:
                asyncio.get_running_loop().call_soon(self._resume_raw)

    def _resume_raw(self) -> None:
        if self._reading and self._raw is not None:
            self._raw.resume_reading()

    def finish(self) -> None:
        """Sends what is written, then closes (over TLS with close_notify); a peer that takes nothing is cut off."""
        if not self.transport.is_closing():
            self.transport.close()
        self._watch_drain(self.unsent)

    def _watch_drain(self, left: int) -> None:
        asyncio.get_running_loop().call_later(DRAIN_S, self._check_drain, left)

    def _check_drain(self, left_before: int) -> None:
        left = self.unsent
        if left and left < left_before:
            self._watch_drain(left)
        else:
            self.transport.abort()


class Relay:
    """Two wires joined. `on_end` is called once, when both are closed."""

    def __init__(self, client: Wire, server: Wire, on_end: Callable[[], None]) -> None:
        self._client = client
        self._server = server
        self._on_end = on_end
        self._open = 2

    def start(self, to_client: bytes, to_server: bytes) -> None:
        """Joins the wires; the leftovers of the login go first."""
        client, server = self._client, self._server
        client.transport.set_protocol(ClientEnd(self, client, server))
        server.transport.set_protocol(ServerEnd(self, server, client))
        if client.write_paused:
            server.pause()
        client.resume()
        client.transport.write(to_client)
        if to_server:
            server.transport.write(to_server)

    def closed(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._on_end()

    def stop(self) -> None:
        self._client.finish()
        self._server.finish()


class End(asyncio.Protocol):
    """One side of a relay: what it receives is written to the other side."""

    def __init__(self, relay: Relay, wire: Wire, other: Wire) -> None:
        self.relay = relay
        self.wire = wire
        self.other = other
        self._write = other.transport.write

    def data_received(self, data: bytes) -> None:
        self._write(data)

    def pause_writing(self) -> None:
        self.wire.write_paused = True
        self.other.pause()

    def resume_writing(self) -> None:
        self.wire.write_paused = False
        self.other.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self.other.finish()
        self.relay.closed()


class ServerEnd(End):
    """The mail server's side: when it ends, the client gets what is left and is closed."""

    def eof_received(self) -> bool:
        self.other.finish()
        return False


class ClientEnd(End):
    """The mail client's side: it may end its stream and go on reading, but not over TLS, which is then closed."""

    def eof_received(self) -> bool:
        if self.wire.is_tls:
            self.other.finish()
            return False
        last_words = LastWords(self.relay, self.other, self.wire)
        self.other.transport.set_protocol(last_words)
        last_words.watch()
        return True


class LastWords(ServerEnd):
    """The server's side after the client's end of stream: idle for 30 s, it is left."""

    def __init__(self, relay: Relay, wire: Wire, other: Wire) -> None:
        super().__init__(relay, wire, other)
        self._heard = False
        self._timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._write(data)

    def watch(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(IDLE_AFTER_EOF_S, self._check)

    def _check(self) -> None:
        if self._heard or self.other.write_paused:
            self._heard = False
            self.watch()
        else:
            self.wire.finish()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)
