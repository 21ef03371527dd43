"""TLS over any connection: whatever pieces its octets come in, and whoever ends it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from emailproxy.demo.certificates import Authority
from emailproxy.net.tlstransport import MOST_UNANSWERED, RECORD, TlsTransport, start_tls

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

    def get_write_buffer_size(self) -> int:
        return len(self.peer._arrived)

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
        self.may_write = asyncio.Event()
        self._more = asyncio.Condition()

    def data_received(self, data: bytes) -> None:
        assert not self.lost.is_set()
        self.data += data

    def eof_received(self) -> bool:
        self.ended.set()
        return False

    def resume_writing(self) -> None:
        self.may_write.set()

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


async def test_a_close_over_octets_that_were_read_already_is_a_whole_one(authority: Authority) -> None:
    """They stand where OpenSSL looks for the peer's close_notify."""
    async with secured(authority, 10**6) as ((client, above), (server, _)):
        await above.has(b"ready")
        above.data_received = lambda data: client.pause_reading()  # type: ignore[method-assign]
        records = [server._records(memoryview(b"one more"))[0] for _ in range(3)]
        server._below.write(b"".join(records))
        async with asyncio.timeout(PATIENCE_S):
            while not client._paused:
                await asyncio.sleep(0)
        server.pause_reading()  # so it does not hang up in turn
        client.close()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not client._below.is_closing(), "what was written would not arrive"


async def test_a_close_while_a_transfer_gathers_hears_of_the_peers_end(authority: Authority) -> None:
    async with secured(authority, 10**6) as ((client, above), (server, _)):
        await above.has(b"ready")
        while not client._gathering:
            server.write(OCTETS[:5000])
            for _ in range(4):
                await asyncio.sleep(0)
        client.close()
        async with asyncio.timeout(PATIENCE_S):
            await above.lost.wait()


async def test_octets_before_a_record_that_is_not_genuine_are_told(authority: Authority) -> None:
    async with secured(authority, 10**6) as ((_, above), (server, _)):
        await above.has(b"ready")
        forged = b"\x17\x03\x03\x00\x20" + bytes(32)
        server._below.write(b"".join(server._records(memoryview(OCTETS))) + forged)
        server._below.write(b"".join(server._records(memoryview(b"behind it"))))
        await above.lost.wait()
        assert above.data == b"ready" + OCTETS
        assert not above.ended.is_set()


async def test_a_peer_that_asks_for_new_keys_and_takes_no_answer_is_cut(authority: Authority) -> None:
    """Python's ssl cannot ask for them, so the answers are put where OpenSSL would."""
    async with secured(authority, 10**6) as ((client, above), (server, _)):
        await above.has(b"ready")
        server.pause_reading()
        for _ in range(MOST_UNANSWERED // RECORD):
            client._outgoing.write(bytes(RECORD))
            server.write(b"!")
            await above.has(above.data + b"!")
        assert not client.is_closing()
        client._outgoing.write(bytes(1))
        server.write(b"!")
        await above.lost.wait()


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


async def test_who_waits_to_write_when_the_handshake_begins_hears_that_the_peer_reads(authority: Authority) -> None:
    near, peer = line(10**6)
    above = Heard()
    trust = authority.client_context()
    peer.pause_reading()
    asking = start_tls(near, above, trust, server_hostname="localhost", handshake_timeout_s=PATIENCE_S)
    shaking = asyncio.ensure_future(asking)
    await asyncio.sleep(0)
    near._protocol.resume_writing()
    assert above.may_write.is_set()
    shaking.cancel()
    await asyncio.wait([shaking])


async def test_a_certificate_of_another_name_is_not_taken(authority: Authority) -> None:
    near, far = line(10**6)
    context = authority.issue("elsewhere.example").server_context()
    serving = start_tls(far, Heard(), context, server_side=True, handshake_timeout_s=PATIENCE_S)
    trust = authority.client_context()
    asking = start_tls(near, Heard(), trust, server_hostname="localhost", handshake_timeout_s=PATIENCE_S)
    refused, told = await asyncio.gather(asking, serving, return_exceptions=True)
    assert isinstance(refused, ssl.SSLCertVerificationError)
    assert isinstance(told, (TlsTransport, OSError))  # in TLS 1.3 the server has finished by then
