"""Warm logins: what can be had at once is not waited for, and what cannot is."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from emailproxy.demo.certificates import Authority
from emailproxy.secret import Secret
from emailproxy.wire.events import Credential
from tests.net.loops import on_both_loops
from tests.net.stubs import LIMITS, LOGIN, accept_login, proxy_before

WARM = Credential("user@example.com", Secret("warm-token"))


async def one_login(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await accept_login(reader, writer)
    await reader.readline()


@on_both_loops
async def test_a_warm_login_asks_nobody(authority: Authority) -> None:
    async with proxy_before(one_login, authority) as proxy:
        proxy.tokens.warm = WARM
        _, writer = await proxy.log_in()
        writer.close()
        await proxy.listener._empty.wait()
        assert proxy.tokens.asked == proxy.tokens.settled == []
        assert not proxy.shared.places._queues


@on_both_loops
async def test_a_warm_login_waits_for_its_place_like_any_other(authority: Authority) -> None:
    limits = replace(LIMITS, max_connections_per_account=1)
    async with proxy_before(one_login, authority, limits=limits) as proxy:
        proxy.tokens.warm = WARM
        _, first = await proxy.log_in()
        reader, second = await proxy.connect()
        await reader.readline()
        second.write(LOGIN)
        await proxy.tokens.asked_one.wait()  # it has gone the long way
        first.write(b"z LOGOUT\r\n")
        assert (await reader.readline()).startswith(b"a OK")
        first.close()
        second.close()


@on_both_loops
async def test_a_client_that_leaves_with_its_login_is_no_fault(authority: Authority) -> None:
    async with proxy_before(one_login, authority) as proxy:
        proxy.tokens.warm = WARM
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(LOGIN)
        writer.transport.abort()
        await proxy.listener._empty.wait()
        assert not proxy.shared.places._queues
