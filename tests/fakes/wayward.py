"""Proxies on the loopback that do not do their work, each in its own way; and a SOCKS5 proxy that does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from tests.fakes.tunnel import Target, lead, on_loopback

GRANTED, REFUSED, UNREACHABLE = 0, 2, 4  # RFC 1928 section 6
NO_LOGIN, LOGIN, NONE_OF_THEM = 0, 2, 255  # section 3


@asynccontextmanager
async def answering(*pieces: bytes, http: bool = True, stays: bool = False) -> AsyncIterator[int]:
    """Hears a request's head, or only its first octets, and answers in these pieces; the port of it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (reader.readuntil(b"\r\n\r\n") if http else reader.read(1024))
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if stays:
            await reader.read()

    async with on_loopback(serve) as port:
        yield port


@asynccontextmanager
async def socks5(
    targets: Mapping[Target, int], *, login: tuple[str, str] | None = None, reply: int = GRANTED
) -> AsyncIterator[tuple[int, list[Target]]]:
    """A SOCKS5 proxy (RFC 1928, RFC 1929) that leads names to local ports; its port, and what it was asked for."""
    asked: list[Target] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _version, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        wanted = NO_LOGIN if login is None else LOGIN
        writer.write(bytes([5, wanted if wanted in methods else NONE_OF_THEM]))
        if wanted not in methods or not await _logged_in(reader, writer):
            return
        _version, _connect, _reserved, kind = await reader.readexactly(4)
        host = await _host(reader, kind)
        port = int.from_bytes(await reader.readexactly(2), "big")
        asked.append((host, port))
        target = (host, port)
        if reply != GRANTED or target not in targets:
            writer.write(bytes([5, reply or UNREACHABLE, 0, 1]) + bytes(6))
            return
        await lead(reader, writer, targets[target], bytes([5, GRANTED, 0, 1]) + bytes(6))

    async def _logged_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if login is None:
            return True
        await reader.readexactly(1)
        told = [(await reader.readexactly((await reader.readexactly(1))[0])).decode() for _ in login]
        writer.write(bytes([1, 0 if tuple(told) == login else 1]))
        return tuple(told) == login

    async with on_loopback(serve) as port:
        yield port, asked


async def _host(reader: asyncio.StreamReader, kind: int) -> str:
    match kind:
        case 1:
            return ".".join(map(str, await reader.readexactly(4)))
        case 3:
            return (await reader.readexactly((await reader.readexactly(1))[0])).decode()
    raise AssertionError(f"address type {kind}")
