"""aiohttp's HTTP server with the limits that it lacks: one request a connection, 16 KiB, 10 s for the header.

Imported when a listener is first needed: aiohttp costs 14 MiB and 0.1 s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from emailproxy.config.model import KIB, MINUTES
from emailproxy.oauth import pages
from emailproxy.oauth.callback import Ask
from emailproxy.oauth.pages import Page

MAX_HEADER = 16 * KIB  # octets; codes have 2 KiB, and other programs on localhost set cookies
MAX_CONNECTIONS = 100  # browsers of people who sign in; beyond, who is silent the longest makes room
WHOLE_S = 1 * MINUTES  # for everything after the header: the code's exchange takes 30 s at most

NAVIGATION = {"Sec-Fetch-Mode": ("navigate",), "Sec-Fetch-Dest": ("document",)}
"""What browsers say of a page that their person goes to (W3C Fetch Metadata); others say nothing."""

NOWHERE = logging.Logger("nowhere", logging.CRITICAL + 1)
"""For aiohttp's own words: they may quote a request line, and with it a code."""

log = logging.getLogger("emailproxy.oauth")

Answer = Callable[[Ask], Awaitable[Page]]


class Connection(RequestHandler):
    """One connection, one request."""

    __slots__ = ("_octets",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._octets = 0

    def data_received(self, data: bytes) -> None:
        self._octets += len(data)
        if self._octets > MAX_HEADER:
            self.force_close()
            return
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A request that does not parse; aiohttp would quote it."""
        return response_of(pages.unreadable() if status < 500 else pages.broken())


class Server(web.Server):
    """Makes connections, and ends slow ones."""

    def __init__(self, answer: Answer, *, header_s: float) -> None:
        super().__init__(self._respond)
        self._answer = answer
        self._header_s = header_s
        self._timers: dict[RequestHandler, asyncio.TimerHandle] = {}
        self._silent: dict[RequestHandler, asyncio.Transport] = {}
        """Connections without a whole header yet, oldest first."""

    def __call__(self) -> RequestHandler:
        return Connection(
            self,
            loop=asyncio.get_running_loop(),
            logger=NOWHERE,
            access_log=None,
            max_line_size=MAX_HEADER,
            max_field_size=MAX_HEADER,
            lingering_time=0,
        )

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

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        self._silent.pop(request.protocol, None)
        if request.transport is not None and request.protocol in self._timers:
            self._limit(request.protocol, request.transport, WHOLE_S)
        try:
            return response_of(await self._answer(ask_of(request)))
        except ValueError:  # a target that is no URL
            return response_of(pages.unreadable())
        except Exception as error:
            log.error("the redirect listener failed (%s)", type(error).__name__)  # its text may hold a code
            return response_of(pages.broken())


def ask_of(request: web.BaseRequest) -> Ask:
    """Foreign, missing and doubled hosts pass aiohttp, and an absolute-form target overrides them: all count."""
    named: list[str | None] = [*request.headers.getall("Host", [])]
    target = request.url.host
    if target is not None and ":" in target:  # yarl takes an IPv6 address out of its brackets
        target = f"[{target}]"
    return Ask(
        method=request.method,
        hosts=(*(named or [None]), target),
        origins=tuple(request.headers.getall("Origin", [])),
        embedded=any(
            sent not in usual for name, usual in NAVIGATION.items() for sent in request.headers.getall(name, [])
        ),
        path=request.path,
        query=list(request.query.items()),
    )


def response_of(page: Page) -> web.Response:
    response = web.Response(
        text=page.text, content_type="text/html", charset="utf-8", status=page.status, headers=page.headers
    )
    response.force_close()
    return response
