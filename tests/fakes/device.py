"""A small device authorization server (RFC 8628): honest about intervals, the end of a code, and its single use."""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
LINGER_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends RST (socket(7))."""


@dataclass
class Code:
    user_code: str
    expires_at_s: float
    polled_at_s: float
    approved_by: str | None = None
    denied: bool = False
    used: bool = False


@dataclass
class Desk:
    """The server, from ``async with`` until its end, on a free port of 127.0.0.1.

    Args:
        now: seconds since the epoch.
        token: makes an access token for who approved.
    """

    now: Callable[[], float]
    token: Callable[[str], str]
    interval_s: int = 5
    life_s: int = 900
    complete: bool = True
    """It has a verification_uri_complete."""
    lasting: bool = True
    """It gives refresh tokens."""
    codes: dict[str, Code] = field(default_factory=dict)
    polls: list[tuple[float, str]] = field(default_factory=list)
    """When it was polled, and what it answered."""
    faults: deque[str] = field(default_factory=deque)
    """What the next polls meet, in place of an answer: ``reset``, ``503``, ``429``, or an OAuth 2.0 error."""
    hold: asyncio.Event | None = None
    """Polls are answered when it is set."""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/device", self._begin)
        app.router.add_post("/token", self._poll)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def code(self) -> Code:
        """The newest."""
        return list(self.codes.values())[-1]

    @property
    def answers(self) -> list[str]:
        return [answer for _, answer in self.polls]

    async def _begin(self, request: web.Request) -> web.Response:
        form = await request.post()
        if not form.get("client_id"):
            return web.json_response({"error": "invalid_client"}, status=401)
        user_code = f"{secrets.token_hex(2)}-{secrets.token_hex(2)}".upper()
        self.codes[secrets.token_urlsafe(24)] = Code(user_code, self.now() + self.life_s, self.now())
        page = f"{self.url}/activate"
        reply: dict[str, Any] = {
            "device_code": list(self.codes)[-1],
            "user_code": user_code,
            "verification_uri": page,
            "expires_in": self.life_s,
            "interval": self.interval_s,
        }
        complete = {"verification_uri_complete": f"{page}?user_code={user_code}"} if self.complete else {}
        return web.json_response(reply | complete)

    async def _poll(self, request: web.Request) -> web.Response:
        form = await request.post()
        fault = self.faults.popleft() if self.faults else None
        answer = self._answer(str(form.get("grant_type")), str(form.get("device_code"))) if fault is None else fault
        self.polls.append((self.now(), answer))
        if self.hold is not None:
            await self.hold.wait()
        match answer:
            case "granted":
                name = self.codes[str(form["device_code"])].approved_by
                assert name is not None
                reply = {"access_token": self.token(name), "token_type": "Bearer", "expires_in": 3600}
                lasting = {"refresh_token": secrets.token_urlsafe(24)} if self.lasting else {}
                return web.json_response(reply | lasting)
            case "reset":
                assert request.transport is not None
                sock = request.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
                request.transport.abort()
                return web.Response()
            case "503" | "429":
                return web.Response(status=int(answer), headers={"Retry-After": "120"} if answer == "429" else {})
        return web.json_response({"error": answer}, status=400)

    def _answer(self, grant: str, device_code: str) -> str:
        """RFC 8628 section 3.5."""
        code = self.codes.get(device_code)
        if grant != GRANT or code is None or code.used:
            return "invalid_grant"
        if self.now() >= code.expires_at_s:
            return "expired_token"
        early = self.now() < code.polled_at_s + self.interval_s
        code.polled_at_s = self.now()
        if early:
            return "slow_down"
        if code.denied:
            return "access_denied"
        if code.approved_by is None:
            return "authorization_pending"
        code.used = True
        return "granted"
