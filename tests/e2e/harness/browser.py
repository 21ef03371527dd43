"""A person with a browser: follows a consent's URL to the end."""

from __future__ import annotations

from typing import NamedTuple

import aiohttp
from yarl import URL

from emailproxy.demo.certificates import Authority


class Page(NamedTuple):
    status: int
    text: str
    url: str


async def visit(url: str, authority: Authority) -> Page:
    """The page at the end of all redirections; on an "approve" button on the way it clicks."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=authority.client_context())) as session,
        # The URL as it stands: a browser does not encode it once more.
        session.get(URL(url, encoded=True)) as reply,
    ):
        text = await reply.text()
        if 'value="approve"' not in text:
            return Page(reply.status, text, str(reply.url))
        async with session.post(reply.url, data={"decision": "approve"}) as approved:
            return Page(approved.status, await approved.text(), str(approved.url))
