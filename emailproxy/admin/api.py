"""The control socket's HTTP server: JSON in and out.

Imported at the first connection, as aiohttp takes its time, and most servers are never asked.
"""

from __future__ import annotations

import asyncio
import json
import logging
from http import HTTPStatus

from aiohttp import web

from emailproxy.admin.routes import Answer, Answers, Facts, refusal
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
        answer = await self._answer(request)
        return response_of(answer.status, await asyncio.to_thread(encoded, answer.facts))

    def unreadable(self) -> web.Response:
        return refused(refusal(HTTPStatus.BAD_REQUEST, "this is not an HTTP request"))

    def broken(self) -> web.Response:
        words = "emailproxy met a fault of its own; see its log"
        return refused(refusal(HTTPStatus.INTERNAL_SERVER_ERROR, words))

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


def encoded(facts: Facts) -> bytes:
    """The facts in JSON (RFC 8259). Lists go item by item: in between, the thread lets the event loop have its turn, as
    one call for ten thousand accounts would not for 0.1 s."""
    members = (f"{json.dumps(name)}: {_list(value) if isinstance(value, list) else json.dumps(value)}"
               for name, value in facts.items())  # fmt: skip
    return f"{{{', '.join(members)}}}".encode()


def _list(values: list[object]) -> str:
    return f"[{', '.join(map(json.dumps, values))}]"


def refused(answer: Answer) -> web.Response:
    return response_of(answer.status, encoded(answer.facts))


def response_of(status: HTTPStatus, body: bytes) -> web.Response:
    return web.Response(
        body=body, status=status, content_type="application/json", headers={"Cache-Control": "no-store"}
    )
