"""What a session held, TLS above all, is freed at its end, and does not wait for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator

import pytest

from emailproxy.demo.certificates import Authority
from emailproxy.net.relay import Wire
from emailproxy.net.session import Session
from emailproxy.service import new_event_loop
from emailproxy.wire.dialogue import Dialogue
from tests.net.stubs import LOGIN, Proxy, proxy_before
from tests.net.test_places import accepting


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held() -> int:
    return sum(isinstance(thing, (Session, Wire, Dialogue)) for thing in gc.get_objects())


async def logs_out(proxy: Proxy) -> None:
    reader, writer = await proxy.log_in()
    writer.write(b"b LOGOUT\r\n")
    await reader.read()
    writer.close()


async def is_reset(proxy: Proxy) -> None:
    _, writer = await proxy.log_in()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def is_refused(proxy: Proxy) -> None:
    reader, writer = await proxy.connect()
    await reader.readline()
    writer.write(LOGIN.replace(b"secret", b"wrong") + b"b LOGOUT\r\n")
    await reader.read()
    writer.close()
    proxy.tokens.refusals.clear()  # the exceptions there know the session by their tracebacks


@pytest.mark.parametrize("ends", [logs_out, is_reset, is_refused])
@pytest.mark.usefixtures("_no_collector")
def test_a_session_that_ended_is_freed(authority: Authority, ends: Callable[[Proxy], Awaitable[None]]) -> None:
    """On uvloop: asyncio's own TLS has circles in itself."""
    pytest.importorskip("uvloop")

    async def run() -> None:
        async with proxy_before(accepting, authority) as proxy:
            for _ in range(3):
                await ends(proxy)
            async with asyncio.timeout(10):
                while proxy.listener.sessions or held():
                    await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(run())
