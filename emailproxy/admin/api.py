"""The control socket's HTTP server: JSON in and out.

Imported at the first connection, as aiohttp takes its time, and most servers are never asked.
"""

from __future__ import annotations

import json
import logging
from http import HTTPStatus

from aiohttp import web

from emailproxy.admin.routes import Answer, Answers, refusal
from emailproxy.config.model import KIB
from emailproxy.errors import ProtocolError
from emailproxy.oauth.httpserver import HttpServer, hosts_of

HOST = "localhost"
"""The only name that a request may have for us: a browser that was led here by a name of its own is refused."""
MAX_HEADER = 8 * KIB  # octets of a line; the client sends a few hundred in all

log = logging.getLogger("emailproxy.admin")


class Api(HttpServer):
    """Makes connections."""

    max_header = MAX_HEADER

    def __init__(self, routes: Answers) -> None:
        super().__init__("the control socket", log)
        self._routes = routes

    async def answer(self, request: web.BaseRequest) -> web.Response:
        return response_of(await self._answer(request))

    def unreadable(self) -> web.Response:
        return response_of(refusal(HTTPStatus.BAD_REQUEST, "this is not an HTTP request"))

    def broken(self) -> web.Response:
        words = "emailproxy met a fault of its own; see its log"
        return response_of(refusal(HTTPStatus.INTERNAL_SERVER_ERROR, words))

    async def _answer(self, request: web.BaseRequest) -> Answer:
        if request.headers.getall("Origin", []):
            return refusal(HTTPStatus.FORBIDDEN, "web pages may not control emailproxy")
        if hosts_of(request) != (HOST, HOST):
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
    return web.Response(
        body=json.dumps(answer.facts).encode(),
        status=answer.status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
