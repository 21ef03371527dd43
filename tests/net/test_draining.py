"""A listener that closes: what is under way comes to its end, what is idle ends at once."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from emailproxy.demo.certificates import Authority
from emailproxy.net.draining import Patience, sight
from tests.net.loops import on_both_loops
from tests.net.stubs import GREETING, LOGIN, Handler, Proxy, accept_login, echo, proxy_before

BLOCK = bytes(range(256)) * 4096  # 1 MiB
BLOCKS = 12  # more than sockets' buffers on the way hold
QUICK = Patience(quiet_s=0.05, answer_s=30)


async def downloads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An IMAP server that sends a large message, and then waits for commands."""
    await accept_login(reader, writer)
    await reader.readline()
    for _ in range(BLOCKS):
        writer.write(BLOCK)
        await writer.drain()
    await reader.read()


async def expects_no_more(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(10):
        assert await reader.read() == b""


@on_both_loops
async def test_a_download_comes_to_its_end_however_slowly_it_is_read(authority: Authority) -> None:
    async with proxy_before(downloads, authority) as proxy:
        reader, writer = await proxy.log_in(limit=4096)
        writer.write(b"b FETCH\r\n")
        received = hashlib.sha256(await reader.readexactly(len(BLOCK)))
        closing = asyncio.ensure_future(proxy.listener.close(QUICK))
        for _ in range((BLOCKS - 1) * 16):
            received.update(await reader.readexactly(len(BLOCK) // 16))
        assert received.digest() == hashlib.sha256(BLOCK * BLOCKS).digest()
        await expects_no_more(reader)
        await closing
        writer.close()


@on_both_loops
async def test_an_upload_comes_to_its_end_and_is_answered(authority: Authority) -> None:
    full, drained, proceed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow_taker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept_login(reader, writer)
        await full.wait()
        received = hashlib.sha256()
        for _ in range(BLOCKS * 16):
            received.update(await reader.readexactly(len(BLOCK) // 16))
        drained.set()
        await proceed.wait()
        writer.write(received.hexdigest().encode())
        await reader.read()

    async with proxy_before(slow_taker, authority) as proxy:
        reader, writer = await proxy.log_in()
        writer.write(BLOCK * BLOCKS)
        closing = asyncio.ensure_future(proxy.listener.close(QUICK))
        full.set()
        await writer.drain()
        await drained.wait()
        done, _ = await asyncio.wait({closing}, timeout=4 * QUICK.quiet_s)  # as quiet as that, it would end
        assert not done
        proceed.set()
        assert await reader.readexactly(64) == hashlib.sha256(BLOCK * BLOCKS).hexdigest().encode()
        await expects_no_more(reader)
        await closing
        writer.close()


@asynccontextmanager
async def quiet(
    handler: Handler, authority: Authority
) -> AsyncIterator[tuple[Proxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A session, some milliseconds after its login: the kernel's clock for that ticks every 1 to 10."""
    async with proxy_before(handler, authority) as proxy:
        reader, writer = await proxy.log_in()
        [session] = proxy.listener._sessions
        assert session._relay is not None
        while (seen := sight(session._relay.wires[1].transport)) is not None and seen.heard_ago_s < 0.02:
            await asyncio.sleep(0)
        yield proxy, reader, writer
        writer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux remembers")
@on_both_loops
async def test_what_was_idle_before_ends_at_once(authority: Authority) -> None:
    async with quiet(echo, authority) as (proxy, reader, _):
        await proxy.listener.close(Patience(quiet_s=0.02, answer_s=30))
        await expects_no_more(reader)


@on_both_loops
async def test_a_command_from_before_is_answered(authority: Authority) -> None:
    asked, proceed = asyncio.Event(), asyncio.Event()

    async def searches(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept_login(reader, writer)
        await reader.readline()
        asked.set()
        await proceed.wait()
        writer.write(b"b OK\r\n")
        await reader.read()

    async with quiet(searches, authority) as (proxy, reader, writer):
        writer.write(b"b SEARCH\r\n")
        await asked.wait()
        closing = asyncio.ensure_future(proxy.listener.close(QUICK))
        done, _ = await asyncio.wait({closing}, timeout=4 * QUICK.quiet_s)
        assert not done
        proceed.set()
        assert await reader.read() == b"b OK\r\n"
        await closing


@on_both_loops
async def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_told(authority: Authority) -> None:
    async with proxy_before(downloads, authority) as proxy:
        reader, writer = await proxy.log_in()
        closing = asyncio.ensure_future(proxy.listener.close(Patience(quiet_s=30, answer_s=0.05)))
        writer.write(b"b SEARCH without an end of line")
        await expects_no_more(reader)
        await closing
        writer.close()


@on_both_loops
async def test_what_goes_on_and_on_is_cut_when_time_is_over(authority: Authority) -> None:
    async with proxy_before(downloads, authority) as proxy:
        _, writer = await proxy.log_in(limit=1024)
        reader, waiting = await proxy.connect()
        await reader.readline()
        writer.write(b"b FETCH\r\n")
        closing = asyncio.ensure_future(proxy.listener.close(QUICK))
        assert (await reader.read()).startswith(b"* BYE")
        waiting.close()
        await asyncio.wait({closing}, timeout=10 * QUICK.quiet_s)
        [session] = proxy.listener._sessions
        assert session._relay is not None
        assert not session._relay.is_ending
        assert proxy.listener.abort() == 1
        await closing
        writer.transport.abort()


@on_both_loops
async def test_who_awaits_a_token_is_told_and_who_stays_is_cut(authority: Authority) -> None:
    """No login is waited for, and no client's close."""

    async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        await reader.read()

    async with proxy_before(greets, authority) as proxy:
        proxy.tokens.gate.clear()
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(LOGIN)
        await proxy.tokens.asked_one.wait()
        await proxy.listener.close(Patience(quiet_s=30, answer_s=30, goodbye_s=0.05))
        assert proxy.listener.sessions == 0
        assert (await reader.readline()).startswith(b"a NO [UNAVAILABLE] emailproxy is shutting down")
        assert (await reader.read()).startswith(b"* BYE")
        assert proxy.listener.abort() == 0
        writer.close()
