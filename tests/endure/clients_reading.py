"""A client that stops reading in the middle of a message."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from contextlib import suppress
from dataclasses import dataclass

from tests.bench.upstream import BLOCK
from tests.e2e.harness.world import PASSWORD, USER
from tests.endure.crowd import reset
from tests.endure.frame import Stage, scenario
from tests.endure.pulse import Pulse, judge
from tests.endure.site import Site, site
from tests.endure.talk import Talk, connect, steps

MIB = 1024 * 1024
MESSAGE = 100 * MIB
READ_FIRST = 10 * MIB
"""What the client takes before it stops."""
GROWTH_KIB = 256
"""What a stalled session may take, beyond what it took when all it asked for was read."""
FETCH = b"f FETCH 1 BODY.PEEK[]\r\n"
SHARE = 0.95
"""What others keep of their throughput."""


@dataclass
class Reader:
    """A logged-in client that can take a message bit by bit."""

    talk: Talk
    left: int = 0

    async def begin(self) -> None:
        self.talk.writer.write(FETCH)
        line = await self.talk.reader.readline()
        self.left = int(line[line.index(b"{") + 1 : line.index(b"}")])
        self.digest = hashlib.sha256()

    async def take(self, octets: int) -> None:
        """So much of the literal, or what is left of it."""
        octets = min(octets, self.left)
        self.left -= octets
        while octets:
            data = await self.talk.reader.read(min(octets, MIB))
            if not data:
                raise EOFError(f"the connection ended {self.left + octets} octets too soon")
            octets -= len(data)
            self.digest.update(data)

    async def finish(self) -> str:
        """The rest; the digest of all."""
        await self.take(self.left)
        end = await self.talk.reader.readuntil(b"f OK done\r\n")
        assert end == b")\r\nf OK done\r\n", end
        return self.digest.hexdigest()


async def reader(here: Site, source: str) -> Reader:
    """Whose own buffer holds next to nothing: what it does not take waits at the proxy."""
    talk = await connect(here.local_stub, source=source, limit=64 * 1024)
    talk.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    for step in steps("IMAP", USER, PASSWORD).login:
        await talk.say(step)
    return Reader(talk)


def _expected(octets: int) -> str:
    digest = hashlib.sha256()
    for start in range(0, octets, len(BLOCK)):
        digest.update(BLOCK[: octets - start])
    return digest.hexdigest()


async def _speed(one: Reader) -> float:
    """Of one whole message, in MB/s."""
    began_s = time.perf_counter()
    await one.begin()
    await one.finish()
    return MESSAGE / 1e6 / (time.perf_counter() - began_s)


async def _best_speed(one: Reader, times: int) -> float:
    return max([await _speed(one) for _ in range(times)])


@scenario(
    "stalled_reader",
    group="clients",
    what="A client stops reading for ten minutes in the middle of a FETCH of 100 MB, and then reads on.",
    limit_s=1200,
)
async def stalled_reader(stage: Stage) -> None:
    stall_s, times = stage.effort((600.0, 5), (10.0, 1))
    async with site(stage, stub_octets=MESSAGE) as here:
        pulse = Pulse(here.port("IMAP"))
        other, stalled = await reader(here, "127.0.3.1"), await reader(here, "127.0.3.2")
        for one in (other, stalled):
            await _speed(one)  # what is done a first time
        before, alone = await pulse.before(stage.effort(200, 30)), await _best_speed(other, times)
        rest = here.at_rest()
        await stalled.begin()
        async with here.watch.peak() as peak:
            await stalled.take(READ_FIRST)
            await asyncio.sleep(stall_s / 3)
        stage.figure("memory grown by, while it stalls", peak.kib - rest.rss_kib, "KiB", at_most=GROWTH_KIB)
        began_s = time.monotonic()
        async with pulse.beating() as during:
            await asyncio.sleep(max(1.0, stall_s / 3))
        beside = await _best_speed(other, times)
        await asyncio.sleep(max(0.0, began_s + stall_s * 2 / 3 - time.monotonic()))
        stage.figure("memory grown by, with others served beside", here.watch.rss_kib - rest.rss_kib, "KiB")
        stage.figure("stalled for", stall_s, "s")
        stage.figure("of the message not read yet", stalled.left / MIB, "MiB", exactly=(MESSAGE - READ_FIRST) / MIB)
        right = await stalled.finish() == _expected(MESSAGE)
        stage.figure("all octets are right (1), by their digest", int(right), exactly=1)
        stage.figure("another client's download, before", alone, "MB/s")
        least = round(SHARE * alone, 1)
        stage.figure("another client's download, meanwhile", beside, "MB/s", at_least=least, timing=True)
        judge(stage, before, during)
        for one in (other, stalled):
            with suppress(OSError):
                reset(one.talk)
        await here.judge_rest(rest)
