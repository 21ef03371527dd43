"""After login: every octet arrives, a slow reader holds the other side back, and both ways of ending work."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
from pathlib import Path

import pytest

from emailproxy.demo.certificates import Authority
from emailproxy.net import relay
from tests.net.loops import on_both_loops
from tests.net.stubs import accept_login, proxy_before, proxy_to, taken

MIB = 1 << 20
BIG = 200 * MIB
BLOCK = bytes(range(256)) * 4096  # 1 MiB


@on_both_loops
async def test_200_mib_arrive_unchanged_in_both_directions(authority: Authority) -> None:
    sums: asyncio.Queue[str] = asyncio.Queue()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept_login(reader, writer)
        received = hashlib.sha256()
        for _ in range(BIG // MIB):
            received.update(await reader.readexactly(MIB))
        sums.put_nowait(received.hexdigest())
        for _ in range(BIG // MIB):
            writer.write(BLOCK)
            await writer.drain()

    expected = hashlib.sha256(BLOCK * (BIG // MIB)).hexdigest()
    async with proxy_before(handler, authority) as proxy:
        reader, writer = await proxy.log_in(limit=MIB)
        for _ in range(BIG // MIB):
            writer.write(BLOCK)
            await writer.drain()
        assert await sums.get() == expected
        received = hashlib.sha256()
        while data := await reader.read(MIB):
            received.update(data)
        assert received.hexdigest() == expected
        writer.close()


@on_both_loops
async def test_a_client_that_does_not_read_stops_the_server(authority: Authority) -> None:
    """The server can send no more than what buffers on the way hold."""
    stuck, sent = asyncio.Event(), 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await accept_login(reader, writer)
        writer.transport.set_write_buffer_limits(high=0)
        while True:
            writer.write(BLOCK)
            sent += len(BLOCK)
            try:
                async with asyncio.timeout(1):
                    await writer.drain()
            except TimeoutError:
                stuck.set()
                await writer.drain()

    async with proxy_before(handler, authority) as proxy:
        _, writer = await proxy.log_in(limit=1024)
        await stuck.wait()
        assert sent < 32 * MIB  # the kernel's socket buffers, twice, and ours
        session = next(iter(proxy.listener._sessions))
        wire = session._relay.wires[0]  # type: ignore[union-attr]
        assert wire.transport.get_write_buffer_size() <= 4 * relay.BUFFER_LIMIT
        writer.transport.abort()


@on_both_loops
async def test_a_server_that_does_not_read_stops_the_client(authority: Authority) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept_login(reader, writer)
        await asyncio.Event().wait()

    async with proxy_before(handler, authority) as proxy:
        _, writer = await proxy.log_in()
        writer.transport.set_write_buffer_limits(high=0)
        sent = 0
        while await taken(writer, BLOCK):
            sent += len(BLOCK)
        assert sent < 32 * MIB
        writer.transport.abort()


def tail_server(context: ssl.SSLContext, size: int, *, close_notify: bool) -> socket.socket:
    """A server on a thread of its own: after login it sends `size` octets and ends with a bare FIN, or in order."""
    import threading

    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        raw, _ = listening.accept()
        tls = context.wrap_socket(raw, server_side=True)
        tls.sendall(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] ready\r\n")
        tag = tls.recv(65536).split()[0]
        tls.sendall(tag + b" OK in\r\n")
        tls.sendall(b"x" * size)
        if close_notify:
            with contextlib.suppress(OSError):
                tls.unwrap()
            tls.close()
        else:
            bare = tls.detach()
            with socket.socket(fileno=bare) as sock:
                sock.shutdown(socket.SHUT_WR)
                sock.settimeout(20)
                with contextlib.suppress(OSError):
                    while sock.recv(65536):
                        pass
        listening.close()

    threading.Thread(target=serve, daemon=True).start()
    return listening


@pytest.mark.parametrize("close_notify", [False, True], ids=["bare FIN", "close_notify"])
@pytest.mark.parametrize("repetition", range(5))
@on_both_loops
async def test_a_slow_client_gets_the_tail(
    authority: Authority, ca_file: Path, close_notify: bool, repetition: int
) -> None:
    """1 MB, then the server's end: all of it reaches a client that reads late."""
    listening = tail_server(authority.issue("localhost").server_context(), MIB, close_notify=close_notify)
    async with proxy_to(listening.getsockname()[1], ca_file) as proxy:
        reader, writer = await proxy.log_in(limit=1024)
        total = 0
        while data := await reader.read(1024):
            total += len(data)
            await asyncio.sleep(0)
        assert total == MIB
        writer.close()


@on_both_loops
async def test_a_client_that_ends_its_stream_still_gets_the_answer(authority: Authority) -> None:
    proceed = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept_login(reader, writer)
        assert await reader.readline() == b"b FETCH\r\n"
        await proceed.wait()
        writer.write(BLOCK)
        await writer.drain()

    async with proxy_before(handler, authority) as proxy:
        reader, writer = await proxy.log_in()
        writer.write(b"b FETCH\r\n")
        writer.write_eof()
        proceed.set()
        assert await reader.read(-1) == BLOCK
        writer.close()


@on_both_loops
async def test_a_silent_server_is_left_after_the_clients_end(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "IDLE_AFTER_EOF_S", 0.05)
    left = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept_login(reader, writer)
        assert await reader.read(1) == b""
        left.set()

    async with proxy_before(handler, authority) as proxy:
        reader, writer = await proxy.log_in()
        writer.write_eof()
        assert await reader.read(-1) == b""
        await left.wait()
        await proxy.listener._empty.wait()
        writer.close()


@on_both_loops
async def test_the_server_sees_close_notify_when_the_client_leaves(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clean end of stream reads as nothing; without close_notify it would be an SSLError."""
    monkeypatch.setattr(relay, "IDLE_AFTER_EOF_S", 0.05)
    seen: asyncio.Queue[bytes | Exception] = asyncio.Queue()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept_login(reader, writer)
        try:
            seen.put_nowait(await reader.read(1))
        except (ssl.SSLError, ConnectionError) as error:
            seen.put_nowait(error)

    async with proxy_before(handler, authority) as proxy:
        _, writer = await proxy.log_in()
        writer.transport.abort()
        assert await seen.get() == b""
        await proxy.listener._empty.wait()
