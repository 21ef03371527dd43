"""Azure's managed identity endpoints on the loopback: App Service's, and a virtual machine's metadata service."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

import jwt
from aiohttp import web

from emailproxy.demo.ledger import KEY_ID, signing_key
from tests.fakes.provider import FakeProvider, Fault

HEADER = "canary-identity-header"
KNOWN = "11111111-2222-3333-4444-555555555555"
"""The client ID of the one user-assigned identity that is there."""


@dataclass(frozen=True)
class Wanted:
    """One request."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


class FakeAzure:
    """Both endpoints, from ``async with`` until its end. msal finds one by its environment variables.

    Args:
        now: seconds since the epoch.
        further_claims: what its tokens say besides the usual.
    """

    def __init__(self, *, now: Any, further_claims: Mapping[str, Any] | None = None) -> None:
        self.wanted: list[Wanted] = []
        self.stopping = asyncio.Event()
        self._now = now
        self._further_claims = dict(further_claims or {})
        self._faults: deque[Fault] = deque()
        self._runner: web.AppRunner | None = None
        self._url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/msi/token", self._serve)
        app.router.add_get("/metadata/identity/oauth2/token", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *details: object) -> None:
        self.stopping.set()
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def app_service(self) -> dict[str, str]:
        """The environment of a process there."""
        return {"IDENTITY_ENDPOINT": f"{self._url}/msi/token", "IDENTITY_HEADER": HEADER}

    @property
    def machine(self) -> dict[str, str]:
        """The environment of a process on a virtual machine, whose metadata service is elsewhere."""
        return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": self._url}

    def next(self, *faults: Fault) -> None:
        self._faults.extend(faults)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.wanted.append(Wanted(request.path, dict(request.query), dict(request.headers)))
        if self._faults:
            return await self._faults.popleft().answer(cast(FakeProvider, self), request)
        return await self.honest_answer(request)

    async def honest_answer(self, request: web.Request) -> web.StreamResponse:
        query, on_machine = request.query, request.path.startswith("/metadata")
        if request.headers.get("Metadata") != "true" or not query.get("resource"):
            return answer(400, error="invalid_request", error_description="Required metadata header not specified")
        if not on_machine and request.headers.get("X-IDENTITY-HEADER") != HEADER:
            return answer(401, statusCode=401, message="Unauthorized")
        if query.get("client_id", KNOWN) != KNOWN:
            if on_machine:
                return answer(400, error="invalid_request", error_description="Identity not found")
            return answer(400, statusCode=400, message="No User Assigned or Delegated Managed Identity found")
        now = int(self._now())
        ends = now + 86_400
        claims: dict[str, Any] = {
            "aud": query["resource"],
            "appid": query.get("client_id", "system"),
            "sub": "the identity",
        }
        claims |= {"iat": now, "nbf": now, "exp": ends}
        token = jwt.encode(claims | self._further_claims, signing_key(), algorithm="RS256", headers={"kid": KEY_ID})
        times = {"expires_on": str(ends)} | ({"expires_in": "86400"} if on_machine else {})
        return answer(200, access_token=token, token_type="Bearer", resource=query["resource"], **times)


def answer(status: int, **members: Any) -> web.Response:
    return web.Response(status=status, text=json.dumps(members), content_type="application/json")
