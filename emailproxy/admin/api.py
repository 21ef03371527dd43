"""The control socket's HTTP server, by aiohttp: one request a connection, JSON in and out.

Imported at the first connection: aiohttp costs 14 MiB and 0.1 s, and most servers are never asked.
"""

from __future__ import annotations

import asyncio
import json
import logging
from http import HTTPStatus

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from emailproxy.admin.routes import Answer, Routes, refusal
from emailproxy.config.model import KIB
from emailproxy.errors import ProtocolError

HOST = "localhost"
"""The only name that a request may have for us: a browser that was led here by a name of its own is refused."""
MAX_HEADER = 8 * KIB  # octets of a line; the client sends a few hundred in all

NOWHERE = logging.Logger("nowhere", logging.CRITICAL + 1)
"""For aiohttp's own words: they may quote a request, and with it a password."""

log = logging.getLogger("emailproxy.admin")


class Handler(RequestHandler):
    """One connection."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A request that does not parse; aiohttp would quote it."""
        return response_of(refusal(HTTPStatus.BAD_REQUEST, "this is not an HTTP request"))


class Api(web.Server):
    """Makes connections."""

    def __init__(self, routes: Routes) -> None:
        super().__init__(self._respond)
        self._routes = routes

    def __call__(self) -> RequestHandler:
        return Handler(
            self,
            loop=asyncio.get_running_loop(),
            logger=NOWHERE,
            access_log=NOWHERE,
            max_line_size=MAX_HEADER,
            max_field_size=MAX_HEADER,
            lingering_time=0,
        )

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return response_of(await self._answer(request))
        except ValueError:  # a target that is no URL
            return response_of(refusal(HTTPStatus.BAD_REQUEST, "this is not an HTTP request"))
        except Exception as error:
            log.error("the control socket failed (%s)", type(error).__name__)  # its text may hold a password
            return response_of(
                refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "emailproxy met a fault of its own; see its log")
            )

    async def _answer(self, request: web.BaseRequest) -> Answer:
        """Foreign, missing and doubled hosts pass aiohttp, and an absolute-form target overrides them: all count."""
        if request.headers.getall("Origin", []):
            return refusal(HTTPStatus.FORBIDDEN, "web pages may not control emailproxy")
        if request.headers.getall("Host", []) != [HOST] or request.url.host != HOST:
            return refusal(HTTPStatus.MISDIRECTED_REQUEST, f"the Host must be {HOST}")
        try:
            body = await body_of(request, self._routes.limit(request.path))
        except ProtocolError as error:
            return refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error))
        return await self._routes.answer(request.method, request.path, request.query, body)


async def body_of(request: web.BaseRequest, limit: int) -> bytes:
    """The body.

    Raises:
        ProtocolError: it is longer than so many octets.
    """
    body = bytearray()
    async for part in request.content.iter_any():
        body += part
        if len(body) > limit:
            raise ProtocolError(f"the body has more than {limit // KIB} KiB")
    return bytes(body)


def response_of(answer: Answer) -> web.Response:
    response = web.Response(
        body=json.dumps(answer.facts).encode(),
        status=answer.status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
    response.force_close()
    return response
