"""The tests' own provider: honest, but for what it is told to do wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.fakes import provider as fakes
from tests.fakes.provider import CLIENT, FakeProvider

FORM = {
    "grant_type": "client_credentials",
    "client_id": CLIENT.id,
    "client_secret": CLIENT.secret or "",
    "scope": "mail",
}


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as started:
        yield started


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as opened:
        yield opened


async def ask(provider: FakeProvider, session: aiohttp.ClientSession) -> tuple[int, bytes]:
    async with session.post(provider.token_url, data=FORM, allow_redirects=False) as reply:
        return reply.status, await reply.read()


@pytest.mark.parametrize("name", fakes.UNUSABLE)
async def test_a_fault_spoils_one_reply(provider: FakeProvider, session: aiohttp.ClientSession, name: str) -> None:
    provider.next(fakes.UNUSABLE[name])
    try:
        status, body = await ask(provider, session)
    except aiohttp.ClientError:
        assert name == "a reset connection"
    else:
        assert not (status == 200 and usable(body))
    status, body = await ask(provider, session)
    assert status == 200
    assert usable(body)
    assert provider.arrived == 2


def usable(body: bytes) -> bool:
    """Whether a reply is what RFC 6749 section 5.1 asks for."""
    try:
        reply: Any = json.loads(body)
        token, life_s = reply["access_token"], reply["expires_in"]
        printable = token.isprintable() and reply.get("refresh_token", "").isprintable()
        return printable and type(life_s) is int and life_s > 0
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return False


async def test_members_are_changed_and_left_out(provider: FakeProvider, session: aiohttp.ClientSession) -> None:
    provider.next(fakes.altered(scope=fakes.ABSENT, expires_in="3600"))
    reply = json.loads((await ask(provider, session))[1])
    assert reply.keys() == {"access_token", "token_type", "expires_in"}
    assert reply["expires_in"] == "3600"


async def test_a_hanging_request_is_known_of_and_released(
    provider: FakeProvider, session: aiohttp.ClientSession
) -> None:
    hang = fakes.Hang()
    provider.next(hang)
    asked = asyncio.create_task(ask(provider, session))
    await provider.wait_for_requests(1)
    assert not asked.done()
    assert provider.requests == []
    hang.release()
    assert (await asked)[0] == 200
    assert len(provider.requests) == 1


async def test_a_hanging_request_does_not_keep_the_provider_from_stopping(
    session: aiohttp.ClientSession,
) -> None:
    async with FakeProvider() as provider:
        provider.next(fakes.Hang())
        asked = asyncio.create_task(ask(provider, session))
        await provider.wait_for_requests(1)
    with pytest.raises(aiohttp.ClientError):
        await ask(provider, session)
    await asyncio.gather(asked, return_exceptions=True)


async def test_a_reply_may_be_lost_after_the_grant(provider: FakeProvider, session: aiohttp.ClientSession) -> None:
    provider.next(fakes.Reset(after_grant=True))
    with pytest.raises(aiohttp.ClientError):
        await ask(provider, session)
    assert [request.status for request in provider.requests] == [200]
