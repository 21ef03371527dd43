"""A port that passes octets to another one, and shows a tap what goes by."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

from emailproxy.demo.transcript import LineTap, Speaker, Tap

CHUNK = 64 * 1024
"""Octets read at once."""


class TappedPort:
    """Stands between a client and the proxy, from ``async with`` until its end."""

    def __init__(self, protocol: str, target: tuple[str, int], tap: Tap) -> None:
        self._protocol = protocol
        self._target = target
        self._tap = tap
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._pass_on(reader, writer)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy_reader, proxy_writer = await asyncio.open_connection(*self._target)
        try:
            await asyncio.gather(
                self._pump(reader, proxy_writer, Speaker.CLIENT),
                self._pump(proxy_reader, writer, Speaker.PROXY),
            )
        finally:
            proxy_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, speaker: Speaker) -> None:
        tap = LineTap(self._tap, self._protocol, speaker)
        while data := await reader.read(CHUNK):
            tap.feed(data)
            writer.write(data)
            await writer.drain()
        writer.write_eof()
