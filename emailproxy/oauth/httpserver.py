"""aiohttp's HTTP server as we use it: one request a connection, and nothing of a request in the log.

Imported when a listener is first needed: aiohttp costs 14 MiB and 0.1 s.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

NOWHERE = logging.Logger("nowhere", logging.CRITICAL + 1)
"""For aiohttp's own words: they may quote a request, and with it a code or a password."""


class Connection(RequestHandler):
    """One connection, one request."""

    __slots__ = ("_server",)

    def __init__(self, server: HttpServer) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            logger=NOWHERE,
            access_log=NOWHERE,
            max_line_size=server.max_header,
            max_field_size=server.max_header,
            lingering_time=0,
        )
        self._server = server

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A request that does not parse; aiohttp would quote it."""
        return self._server.unreadable() if status < 500 else self._server.broken()


class HttpServer(web.Server, ABC):
    """Makes connections, and answers each one's request."""

    max_header: int
    """Octets of a request's line, and of a header's field."""

    def __init__(self, name: str, log: logging.Logger) -> None:
        """`name` is what `log` calls it."""
        super().__init__(self._respond)
        self._name = name
        self._log = log

    def __call__(self) -> RequestHandler:
        return Connection(self)

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await self.answer(request)
        except ValueError:  # a target that is no URL
            response = self.unreadable()
        except Exception as error:
            self._log.error("%s failed (%s)", self._name, type(error).__name__)  # its text may hold a secret
            response = self.broken()
        response.force_close()
        return response

    @abstractmethod
    async def answer(self, request: web.BaseRequest) -> web.Response:
        """The response to a request that parses."""

    @abstractmethod
    def unreadable(self) -> web.Response:
        """The response to one that does not."""

    @abstractmethod
    def broken(self) -> web.Response:
        """The response where the server met a fault of its own."""


def hosts_of(request: web.BaseRequest) -> tuple[str | None, ...]:
    """Whom a request is for, None where it does not say: each of its Host fields, and the host of its target.

    Foreign, missing and doubled fields pass aiohttp, and an absolute-form target (RFC 9112 section 3.2.2) overrides
    them: all of these count.

    Raises:
        ValueError: the target is no URL.
    """
    target = request.url.host
    if target is not None and ":" in target:  # yarl takes an IPv6 address out of its brackets
        target = f"[{target}]"
    return (*(request.headers.getall("Host", None) or (None,)), target)
