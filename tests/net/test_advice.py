"""What a session hands on of a mail server's refusal: to whoever knows what it means, and to whoever is to be told."""

from __future__ import annotations

import asyncio

import pytest

from emailproxy.demo.certificates import Authority
from emailproxy.errors import LoginRefused, ServerUnavailable, TokenRefused
from emailproxy.wire.events import Advice
from tests.net.stubs import GREETING, proxy_before

BUSY = Advice("the server has too much to do", "wait", temporary=True)
CLOSED = Advice("the mailbox is closed", "open it")


async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GREETING)
    while command := await reader.readline():
        writer.write(command.split()[0] + b" NO reason 7\r\n")


@pytest.mark.parametrize(
    ("advice", "asked", "code", "kind"),
    [
        (BUSY, [None], b"UNAVAILABLE", ServerUnavailable),
        (CLOSED, [None, "NO reason 7"], b"AUTHORIZATIONFAILED", TokenRefused),
    ],
)
async def test_a_refusal_is_explained_and_told(
    authority: Authority, advice: Advice, asked: list[str | None], code: bytes, kind: type[LoginRefused]
) -> None:
    async with proxy_before(refusing, authority) as proxy:
        proxy.tokens.advise = lambda text: advice if text == "NO reason 7" else None  # type: ignore[method-assign]
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(b"a LOGIN user@example.com secret\r\n")
        reply = await reader.readline()
        writer.close()
    assert reply == b"a NO [" + code + f"] {advice} (the mail server says: NO reason 7)\r\n".encode()
    assert [rejected for _, rejected in proxy.tokens.asked] == asked
    assert [(user, type(error)) for user, error in proxy.tokens.refusals] == [("user@example.com", kind)]
