"""An HTTP proxy that knows CONNECT only (RFC 9110 section 9.3.6): providers' names lead to local ports.

Its URL goes into the environment variable `https_proxy`, of this process or of a child: what speaks with providers asks
it for ``login.microsoftonline.com:443`` and gets the tests' own server, with TLS end to end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

HEAD_BYTES = 16 * 1024
CHUNK_BYTES = 64 * 1024

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Target = tuple[str, int]
"""A host name, in lower case, and a port."""


class Tunnel(str):
    """The proxy's URL, and what was asked of it."""

    __slots__ = ("asked",)
    asked: list[Target]
    """Targets in order, refused ones included."""

    def __new__(cls, url: str) -> Tunnel:
        tunnel = super().__new__(cls, url)
        tunnel.asked = []
        return tunnel


@asynccontextmanager
async def tunnel(targets: Mapping[Target, int]) -> AsyncIterator[Tunnel]:
    """A proxy on the loopback that leads each target to a local port, and refuses all others with 502."""
    asked: list[Target] = []
    async with on_loopback(lambda reader, writer: _serve(reader, writer, targets, asked)) as port:
        url = Tunnel(f"http://127.0.0.1:{port}")
        url.asked = asked
        yield url


@asynccontextmanager
async def on_loopback(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that serves each connection so; its port."""
    under_way: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a peer that leaves is no fault of the proxy's
        except asyncio.CancelledError:
            pass  # the proxy ends
        finally:
            under_way.discard(task)
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0, limit=HEAD_BYTES, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(under_way):
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await server.wait_closed()


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, targets: Mapping[Target, int], asked: list[Target]
) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    target = _target(head)
    if target is None:
        await _answer(writer, "405 Method Not Allowed")
        return
    asked.append(target)
    if target not in targets:
        await _answer(writer, "502 Bad Gateway")
        return
    await lead(reader, writer, targets[target], b"HTTP/1.1 200 Connection established\r\n\r\n")


async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, ready: bytes) -> None:
    """Passes octets to a local port and back, until both sides have ended; `ready` tells that they may begin."""
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port, limit=CHUNK_BYTES)
    try:
        writer.write(ready)
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
    finally:
        far_writer.close()


def _target(head: bytes) -> Target | None:
    method, _, rest = head.decode("latin-1").partition(" ")
    host, _, port = rest.partition(" ")[0].rpartition(":")
    if method != "CONNECT" or not host or not port.isdecimal():
        return None
    return host.strip("[]").lower(), int(port)


async def _answer(writer: asyncio.StreamWriter, status: str) -> None:
    writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
    await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the reader's end, which the writer's peer is told."""
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()
