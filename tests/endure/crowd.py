"""Many raw connections at once: clients that hold on, fall silent, or leave without a word."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

from tests.e2e.harness.world import PASSWORD, USER
from tests.endure.talk import Talk, connect, imap_step, steps
from tests.endure.watch import seconds_until

AT_ONCE = 64
"""Connections that are being opened at a time: a listener's queue holds a hundred or more."""
KEPT = 4096
"""Octets that a member remembers: what it was told first."""
RESET_AT_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: close() sends RST."""
LOGINS_AT_ONCE = 32


class Member(asyncio.Protocol):
    """One connection. It says nothing by itself."""

    def __init__(self) -> None:
        self.heard = b""
        self.over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are not instances of it

    def data_received(self, data: bytes) -> None:
        if len(self.heard) < KEPT:
            self.heard += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.over = True


class Crowd:
    """Members from several addresses of the loopback in turn, so that the proxy's limit by address is not all they
    meet."""

    def __init__(self, ports: Sequence[int], sources: Sequence[str]) -> None:
        self._ports, self._sources = ports, sources
        self._room = asyncio.Semaphore(AT_ONCE)
        self.members: list[Member] = []
        self.refused = 0
        """Whose SYN was not answered in time, or was answered with RST."""

    @property
    def alive(self) -> int:
        return sum(not member.over for member in self.members)

    async def grow(self, count: int) -> None:
        """So many more connect."""
        first = len(self.members) + self.refused
        await asyncio.gather(*(self._join(number) for number in range(first, first + count)))

    async def _join(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        address = ("127.0.0.1", self._ports[number % len(self._ports)])
        source = self._sources[number // len(self._ports) % len(self._sources)]
        async with self._room:
            try:
                _, member = await loop.create_connection(Member, *address, local_addr=(source, 0))
            except OSError:
                self.refused += 1
            else:
                self.members.append(member)

    async def emptied(self, within_s: float) -> float:
        """Seconds until the proxy has closed all of them; infinity, where it has not in time."""
        return await seconds_until(lambda: self.alive == 0, within_s)

    def leave(self) -> None:
        for member in self.members:
            member.transport.abort()


@asynccontextmanager
async def crowd(ports: Sequence[int], sources: Sequence[str]) -> AsyncIterator[Crowd]:
    """A crowd that leaves at the end."""
    people = Crowd(ports, sources)
    try:
        yield people
    finally:
        people.leave()


def addresses(count: int) -> list[str]:
    """So many of the loopback's."""
    return [f"127.0.3.{number}" for number in range(1, count + 1)]


# ---- who has logged in


@asynccontextmanager
async def guests(port: int, count: int, *, source: str = "127.0.0.1") -> AsyncIterator[list[Talk]]:
    """So many IMAP clients that have logged in; they leave with RST.

    Raises:
        OSError, EOFError, Unexpected: one was not let in.
    """
    inside: list[Talk] = []
    turns = asyncio.Semaphore(LOGINS_AT_ONCE)
    dialogue = steps("IMAP", USER, PASSWORD)

    async def come() -> None:
        async with turns:
            talk = await connect(port, source=source)
            inside.append(talk)
            for step in dialogue.login:
                await talk.say(step)

    try:
        await asyncio.gather(*(come() for _ in range(count)))
        yield inside
    finally:
        for talk in inside:
            reset(talk)


async def answering(inside: Sequence[Talk]) -> int:
    """How many answer a NOOP."""
    noop = imap_step(b"n", b"NOOP")
    answers = await asyncio.gather(*(talk.say(noop) for talk in inside), return_exceptions=True)
    return sum(isinstance(answer, bytes) for answer in answers)


def reset(talk: Talk) -> None:
    """Leaves with RST, whatever is still on its way."""
    talk.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
    talk.writer.transport.abort()
