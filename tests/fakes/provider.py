"""The embedded provider with faults on demand: each fault answers one request to the token endpoint."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Protocol

from aiohttp import web

from emailproxy.demo.ledger import Client
from tests.fakes.grants import Granting

MIB = 1024 * 1024
LINGER_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends RST (socket(7))."""

CLIENT = Client("test-client", "test-secret", ("http://localhost:8801/", "http://127.0.0.1:8801/"))


class Fault(Protocol):
    async def answer(self, provider: FakeProvider, request: web.Request) -> web.StreamResponse:
        """The reply in place of the honest one."""
        ...


@dataclass
class Reply:
    """A fixed reply; the request changes nothing."""

    status: int
    body: str | bytes = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    async def answer(self, provider: FakeProvider, request: web.Request) -> web.StreamResponse:
        body = self.body.encode() if isinstance(self.body, str) else self.body
        headers = {"Content-Type": "application/json", **self.headers}
        return web.Response(status=self.status, body=body, headers=headers)


@dataclass
class Altered:
    """The honest reply with some members set, and those set to `ABSENT` left out."""

    changes: Mapping[str, Any]

    async def answer(self, provider: FakeProvider, request: web.Request) -> web.StreamResponse:
        honest = await provider.honest_answer(request)
        assert isinstance(honest, web.Response)
        assert isinstance(honest.body, bytes)
        reply = {**json.loads(honest.body), **self.changes}
        reply = {name: value for name, value in reply.items() if value is not ABSENT}
        return web.json_response(reply, status=honest.status)


@dataclass
class Hang:
    """No reply until `release` is called; then the honest one."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        self.released.set()

    async def answer(self, provider: FakeProvider, request: web.Request) -> web.StreamResponse:
        self.reached.set()
        waits = [asyncio.ensure_future(event.wait()) for event in (self.released, provider.stopping)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return await provider.honest_answer(request)


@dataclass
class Reset:
    """The connection is reset. With `after_grant`, the honest reply was made, and is lost on the way."""

    after_grant: bool = False

    async def answer(self, provider: FakeProvider, request: web.Request) -> web.StreamResponse:
        if self.after_grant:
            await provider.honest_answer(request)
        transport = request.transport
        assert transport is not None
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        transport.abort()
        return web.Response()


@dataclass
class RedirectToSelf:
    """The token endpoint sends the client, and with it its secrets, to another request."""

    async def answer(self, provider: FakeProvider, request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": provider.token_url})


ABSENT = object()


def refusal(code: str, description: str = "on demand", status: int = 400) -> Reply:
    """An OAuth 2.0 error, e.g. ``invalid_grant`` (RFC 6749 section 5.2)."""
    return Reply(status, json.dumps({"error": code, "error_description": description}))


def unavailable() -> Reply:
    return Reply(503, "down for maintenance", {"Content-Type": "text/plain"})


def throttled(retry_after: str = "60") -> Reply:
    return Reply(429, '{"error": "temporarily_unavailable"}', {"Retry-After": retry_after})


def html_page(status: int = 200) -> Reply:
    """What a captive portal answers."""
    return Reply(status, "<html><h1>Sign in to this network</h1></html>", {"Content-Type": "text/html"})


def garbage() -> Reply:
    return Reply(200, b'{"access_token": \xff\xfe')


def huge() -> Reply:
    return Reply(200, b'{"access_token": "' + b"A" * (10 * MIB) + b'", "token_type": "Bearer"}')


def deep_json() -> Reply:
    return Reply(200, b"[" * 100_000)


def altered(**changes: Any) -> Altered:
    """The honest reply with these members changed: ``altered(expires_in="x")``, ``altered(scope=ABSENT)``."""
    return Altered(changes)


def split_token() -> Altered:
    """An access token that would end the line that it is put into."""
    return Altered({"access_token": "abc\r\nA2 LOGOUT\r\n"})


UNUSABLE: dict[str, Fault] = {
    "503": unavailable(),
    "429": throttled(),
    "an HTML page": html_page(),
    "an HTML error page": html_page(502),
    "garbage": garbage(),
    "10 MiB": huge(),
    "deep JSON": deep_json(),
    "no JSON object": Reply(200, "[]"),
    "an empty reply": Reply(200),
    "expires_in of x": altered(expires_in="x"),
    "expires_in of -1": altered(expires_in=-1),
    "expires_in of 1e99": altered(expires_in=1e99),
    "expires_in of true": altered(expires_in=True),
    "no access token": altered(access_token=ABSENT),
    "a number as access token": altered(access_token=12345),
    "CR and LF in the access token": split_token(),
    "CR and LF in the refresh token": altered(refresh_token="abc\r\ndef"),
    "a reset connection": Reset(),
    "a redirect": RedirectToSelf(),
}
"""Replies that must end in a temporary failure and change nothing, by name; for parametrised tests."""


class FakeProvider(Granting):
    """An honest provider until told otherwise. `clients` defaults to `CLIENT`."""

    def __init__(
        self, clients: Iterable[Client] = (CLIENT,), *, now: Callable[[], float] = time.time, **options: Any
    ) -> None:
        super().__init__(clients, now=now, **options)
        self._now = now
        self.arrived = 0
        """Requests that reached the token endpoint, answered or not."""
        self.stopping = asyncio.Event()
        self._faults: deque[Fault] = deque()
        self._arrival = asyncio.Condition()

    def next(self, *faults: Fault) -> None:
        """The next requests to the token endpoint meet these, one each, in order."""
        self._faults.extend(faults)

    async def wait_for_requests(self, count: int) -> None:
        """Until the token endpoint has been asked `count` times in all."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: self.arrived >= count)

    async def honest_answer(self, request: web.Request) -> web.StreamResponse:
        return await super()._token_endpoint(request)

    async def _token_endpoint(self, request: web.Request) -> web.StreamResponse:
        async with self._arrival:
            self.arrived += 1
            self._arrival.notify_all()
        if self._faults:
            reply = await self._faults.popleft().answer(self, request)
        else:
            reply = await self.honest_answer(request)
        reply.headers.setdefault("Date", formatdate(self._now(), usegmt=True))
        return reply

    async def __aexit__(self, *details: object) -> None:
        self.stopping.set()
        await super().__aexit__(*details)
