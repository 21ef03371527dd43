"""TLS over any connection: whatever pieces its octets come in, and whoever ends it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from emailproxy.demo.certificates import Authority
from emailproxy.net.tlstransport import RECORD, TlsTransport, start_tls

OCTETS = bytes(range(256)) * 400  # several records
PATIENCE_S = 20.0


class Line(asyncio.Transport):
    """One end of a connection in memory, which brings octets in pieces of one size, some turns of the loop later."""

    def __init__(self, chunk: int, turns: int) -> None:
        super().__init__()
        self._chunk = chunk
        self._turns = turns
        self.peer: Line
        self._protocol: asyncio.BufferedProtocol
        self._arrived = bytearray()
        self._paused = self._closing = self._peer_closed = self._lost = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.BufferedProtocol)
        self._protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._closing
        self.peer._arrived += data
        self.peer._soon()

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._soon()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.peer._peer_closed = True
            self.peer._soon()
            asyncio.get_running_loop().call_soon(self._lose)

    abort = close

    def _soon(self, turn: int = 1) -> None:
        then = self._bring if turn == self._turns else partial(self._soon, turn + 1)
        asyncio.get_running_loop().call_soon(then)

    def _bring(self) -> None:
        while self._arrived and not self._paused and not self._closing:
            buffer = memoryview(self._protocol.get_buffer(-1))
            piece = self._arrived[: min(self._chunk, len(buffer))]
            del self._arrived[: len(piece)]
            buffer[: len(piece)] = piece
            self._protocol.buffer_updated(len(piece))
        if self._peer_closed and not self._arrived and not self._paused and not self._closing:
            self._protocol.eof_received()
            self.close()

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self._protocol.connection_lost(None)


class Heard(asyncio.Protocol):
    """All that a protocol above is told."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = asyncio.Event()
        self.lost = asyncio.Event()
        self._more = asyncio.Condition()

    def data_received(self, data: bytes) -> None:
        assert not self.lost.is_set()
        self.data += data

    def eof_received(self) -> bool:
        self.ended.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    async def has(self, octets: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.data) < len(octets):
                await asyncio.sleep(0)
        assert self.data == octets


Side = tuple[TlsTransport, Heard]


def line(chunk: int, turns: int = 1) -> tuple[Line, Line]:
    one, other = Line(chunk, turns), Line(chunk, turns)
    one.peer, other.peer = other, one
    return one, other


@asynccontextmanager
async def secured(authority: Authority, chunk: int) -> AsyncIterator[tuple[Side, Side]]:
    """Client and server."""
    server_context = authority.issue("localhost").server_context()
    (near, far), above, beyond = line(chunk), Heard(), Heard()

    serving = asyncio.ensure_future(
        start_tls(far, beyond, server_context, server_side=True, handshake_timeout_s=PATIENCE_S)
    )
    client = await start_tls(
        near, above, authority.client_context(), server_hostname="localhost", handshake_timeout_s=PATIENCE_S
    )
    server = await serving
    server.write(b"ready")
    yield (client, above), (server, beyond)
    for transport in (client, server):
        transport.abort()
    await above.lost.wait()
    await beyond.lost.wait()


@pytest.mark.parametrize("chunk", [1, 2, 3, 1000, RECORD + 1, 10**6])
async def test_octets_arrive_whatever_pieces_they_come_in(authority: Authority, chunk: int) -> None:
    octets = OCTETS if chunk > 3 else OCTETS[: RECORD + 100]
    async with secured(authority, chunk) as ((client, above), (server, beyond)):
        client.write(octets)
        client.write(memoryview(b"!"))
        server.write(octets)
        await beyond.has(octets + b"!")
        await above.has(b"ready" + octets)


async def test_what_stands_behind_a_handshake_waits_until_the_caller_has_gone_on(authority: Authority) -> None:
    (near, far), above, beyond = line(10**6, turns=5), Heard(), Heard()
    context, trust = authority.issue("localhost").server_context(), authority.client_context()

    async def say_at_once() -> TlsTransport:
        client = await start_tls(near, above, trust, server_hostname="localhost", handshake_timeout_s=PATIENCE_S)
        client.write(b"hello")  # in one piece with the last octets of the handshake
        return client

    saying = asyncio.ensure_future(say_at_once())
    server = await start_tls(far, beyond, context, server_side=True, handshake_timeout_s=PATIENCE_S)
    assert not beyond.data
    await beyond.has(b"hello")
    for transport in (await saying, server):
        transport.abort()
    await above.lost.wait()


@pytest.mark.parametrize("chunk", [3, 10**6])
async def test_a_pause_holds_what_has_come_already(authority: Authority, chunk: int) -> None:
    async with secured(authority, chunk) as ((client, above), (server, beyond)):
        await above.has(b"ready")
        client.pause_reading()
        server.write(OCTETS)
        server.close()
        for _ in range(100):
            await asyncio.sleep(0)
        assert above.data == b"ready"
        assert not above.ended.is_set()
        client.resume_reading()
        await above.has(b"ready" + OCTETS)
        await above.ended.wait()
        await above.lost.wait()
        await beyond.lost.wait()


async def test_whoever_closes_is_followed(authority: Authority) -> None:
    async with secured(authority, 10**6) as ((client, above), (server, beyond)):
        client.write(b"last words")
        client.close()
        client.write(b"and more")
        server.write(b"too late")
        await beyond.lost.wait()
        assert beyond.data == b"last words"
        assert beyond.ended.is_set()
        await above.lost.wait()
        assert b"too late" not in above.data
        assert not above.ended.is_set()
        assert client.is_closing()


async def test_an_end_without_close_notify_is_not_told_as_one(authority: Authority) -> None:
    async with secured(authority, 10**6) as ((client, above), (server, _)):
        await above.has(b"ready")
        server.abort()
        await above.lost.wait()
        assert not above.ended.is_set()
        assert client.is_closing()


@pytest.mark.parametrize(
    ("said", "error"), [(b"* OK plaintext\r\n", ssl.SSLError), (b"", ConnectionResetError), (None, TimeoutError)]
)
async def test_where_there_is_no_tls_the_connection_is_cut(
    authority: Authority, said: bytes | None, error: type[OSError]
) -> None:
    near, far = line(10**6)
    above, beyond = Heard(), Heard()
    if said:
        far.write(said)
    elif said is not None:
        far._protocol = asyncio.BufferedProtocol()
        far.close()
    with pytest.raises(error):
        await start_tls(near, above, authority.client_context(), server_hostname="localhost", handshake_timeout_s=0.1)
    assert near.is_closing()
    assert not above.lost.is_set(), "it was not told of the connection, so neither of its end"
    assert not beyond.data


async def test_a_certificate_of_another_name_is_not_taken(authority: Authority) -> None:
    near, far = line(10**6)
    context = authority.issue("elsewhere.example").server_context()
    serving = start_tls(far, Heard(), context, server_side=True, handshake_timeout_s=PATIENCE_S)
    trust = authority.client_context()
    asking = start_tls(near, Heard(), trust, server_hostname="localhost", handshake_timeout_s=PATIENCE_S)
    refused, told = await asyncio.gather(asking, serving, return_exceptions=True)
    assert isinstance(refused, ssl.SSLCertVerificationError)
    assert isinstance(told, (TlsTransport, OSError))  # in TLS 1.3 the server has finished by then
