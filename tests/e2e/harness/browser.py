"""A person with a browser: follows a consent's URL to the end."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from emailproxy.demo.certificates import Authority
from tests.fakes.tunnel import Target


class Page(NamedTuple):
    status: int
    text: str
    url: str


class Names(AbstractResolver):
    """This browser's DNS: some names and ports lead to local ports, all other names to the loopback."""

    def __init__(self, targets: Mapping[Target, int]) -> None:
        self._targets = targets

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        port = self._targets.get((host, port), port)
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        """There is nothing to close."""


async def visit(url: str, authority: Authority, targets: Mapping[Target, int] | None = None) -> Page:
    """The page at the end of all redirections; on an "approve" button on the way it clicks."""
    connector = aiohttp.TCPConnector(ssl=authority.client_context(), resolver=Names(targets or {}))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        # The URL as it stands: a browser does not encode it once more.
        session.get(URL(url, encoded=True)) as reply,
    ):
        text = await reply.text()
        if 'value="approve"' not in text:
            return Page(reply.status, text, str(reply.url))
        async with session.post(reply.url, data={"decision": "approve"}) as approved:
            return Page(approved.status, await approved.text(), str(approved.url))
