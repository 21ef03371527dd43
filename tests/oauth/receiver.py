"""Whoever is told of events: a small HTTP server with faults on demand, and a program that calls it on a port."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

PROGRAM = (
    "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])));"
    "s.sendall(sys.stdin.buffer.read()); s.shutdown(socket.SHUT_WR); s.recv(1)"
)
"""Passes its standard input on, and ends when it is told so."""


@dataclass
class Told:
    """One event, as it arrived."""

    body: bytes
    headers: dict[str, str]

    @property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.body)
        return fields


@dataclass
class Receiver:
    """Takes events; `gate` holds the answers back while it is not set, `answers` are the next ones' statuses."""

    scheme: str = "http"
    port: int = 0
    program_port: int = 0
    told: list[Told] = field(default_factory=list)
    answers: deque[int] = field(default_factory=deque)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: int = 0
    most_at_once: int = 0
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    @classmethod
    @asynccontextmanager
    async def open(cls, context: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
        receiver = cls("https" if context else "http")
        receiver.gate.set()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", receiver._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        receiver.port = runner.addresses[0][1]
        server = await asyncio.start_server(receiver._serve_program, "127.0.0.1", 0)
        receiver.program_port = server.sockets[0].getsockname()[1]
        try:
            yield receiver
        finally:
            receiver.gate.set()
            server.close()
            await runner.cleanup()

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}/secret-path"

    @property
    def program(self) -> tuple[str, ...]:
        return (sys.executable, "-S", "-c", PROGRAM, str(self.program_port))

    @property
    def accounts(self) -> list[str]:
        return [told.fields["account"] for told in self.told]

    async def wait_for(self, count: int) -> list[Told]:
        """Until so many events have arrived."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.told) >= count)
        return self.told

    async def _note(self, told: Told) -> None:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        async with self._arrived:
            self.told.append(told)
            self._arrived.notify_all()
        await self.gate.wait()
        self.at_once -= 1

    async def _answer(self, request: web.Request) -> web.Response:
        await self._note(Told(await request.read(), dict(request.headers)))
        status = self.answers.popleft() if self.answers else 204
        return web.Response(status=status, headers={"Location": self.url} if 300 <= status < 400 else {})

    async def _serve_program(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._note(Told(await reader.read(), {}))
        writer.close()
