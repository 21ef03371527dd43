"""The redirect listener's HTTP server, with the limits that aiohttp's lacks: 16 KiB a connection, 10 s for the header.

Imported when a listener is first needed, as what it is made of.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from emailproxy.config.model import KIB, MINUTES
from emailproxy.oauth import pages
from emailproxy.oauth.callback import Ask
from emailproxy.oauth.httpserver import Connection, HttpServer, hosts_of
from emailproxy.oauth.pages import Page

MAX_HEADER = 16 * KIB  # octets; codes have 2 KiB, and other programs on localhost set cookies
MAX_CONNECTIONS = 100  # browsers of people who sign in; beyond, who is silent the longest makes room
WHOLE_S = 1 * MINUTES  # for everything after the header: the code's exchange takes 30 s at most

NAVIGATION = {"Sec-Fetch-Mode": ("navigate",), "Sec-Fetch-Dest": ("document",)}
"""What browsers say of a page that their person goes to (W3C Fetch Metadata); others say nothing."""

log = logging.getLogger("emailproxy.oauth")

Answer = Callable[[Ask], Awaitable[Page]]


class Limited(Connection):
    """One connection of so many octets."""

    __slots__ = ("_octets",)

    def __init__(self, server: HttpServer) -> None:
        super().__init__(server)
        self._octets = 0

    def data_received(self, data: bytes) -> None:
        self._octets += len(data)
        if self._octets > MAX_HEADER:
            self.force_close()
            return
        super().data_received(data)


class Server(HttpServer):
    """Makes connections, and ends slow ones."""

    max_header = MAX_HEADER

    def __init__(self, answer: Answer, *, header_s: float) -> None:
        super().__init__("the redirect listener", log)
        self._answer = answer
        self._header_s = header_s
        self._timers: dict[RequestHandler, asyncio.TimerHandle] = {}
        self._silent: dict[RequestHandler, asyncio.Transport] = {}
        """Connections without a whole header yet, oldest first."""

    def __call__(self) -> RequestHandler:
        return Limited(self)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._silent[handler] = transport
        self._limit(handler, transport, self._header_s)
        if len(self._timers) > MAX_CONNECTIONS:  # a stranger's idle ones must not keep a browser out
            self._silent.pop(next(iter(self._silent))).abort()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        self._silent.pop(handler, None)
        timer = self._timers.pop(handler, None)
        if timer is not None:
            timer.cancel()
        super().connection_lost(handler, exc)

    def _limit(self, handler: RequestHandler, transport: asyncio.Transport, limit_s: float) -> None:
        timer = self._timers.get(handler)
        if timer is not None:
            timer.cancel()
        self._timers[handler] = asyncio.get_running_loop().call_later(limit_s, transport.abort)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self._silent.pop(request.protocol, None)
        if request.transport is not None and request.protocol in self._timers:
            self._limit(request.protocol, request.transport, WHOLE_S)
        return response_of(await self._answer(ask_of(request)))

    def unreadable(self) -> web.Response:
        return response_of(pages.unreadable())

    def broken(self) -> web.Response:
        return response_of(pages.broken())


def ask_of(request: web.BaseRequest) -> Ask:
    return Ask(
        method=request.method,
        hosts=hosts_of(request),
        origins=tuple(request.headers.getall("Origin", [])),
        embedded=any(
            sent not in usual for name, usual in NAVIGATION.items() for sent in request.headers.getall(name, [])
        ),
        path=request.path,
        query=list(request.query.items()),
    )


def response_of(page: Page) -> web.Response:
    return web.Response(
        text=page.text, content_type="text/html", charset="utf-8", status=page.status, headers=page.headers
    )
