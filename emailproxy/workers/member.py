"""One of the workers, as the first process sees it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from emailproxy.config.model import SECONDS
from emailproxy.errors import ServiceError
from emailproxy.net.places import Place, Places
from emailproxy.workers.channel import Channel, Facts, Gone, Message
from emailproxy.workers.nursery import Nursery, in_words

START_S = 30 * SECONDS  # for a worker to listen; a single server takes a fraction of one
CLOSE_S = 7 * SECONDS  # for a worker to end, once its sessions have: less than a service manager gives us
LENGTH = struct.Struct("!I")
"""Before each text on its way to the log: how many octets it has."""

log = logging.getLogger("emailproxy.workers")


class Offer(NamedTuple):
    """What all workers have of the first process."""

    nursery: Nursery
    places: Places
    written: Callable[[str], None]
    """Takes what a worker logs."""
    redirects: Callable[[str], Awaitable[None]]
    """Has the worker that does so listen where this account's redirects arrive."""


class Texts(asyncio.Protocol):
    """What a worker logs."""

    def __init__(self, written: Callable[[str], None]) -> None:
        self._written = written
        self._unread = bytearray()
        self.over = asyncio.get_running_loop().create_future()

    def itself(self) -> Texts:
        return self

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while len(self._unread) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._unread)
            end = LENGTH.size + length
            if len(self._unread) < end:
                return
            self._written(self._unread[LENGTH.size : end].decode(errors="replace"))
            del self._unread[:end]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Member:
    """A worker's number, and the process that has it."""

    def __init__(self, number: int, offer: Offer) -> None:
        self.number = number
        self.pid = 0
        self.since_s = 0.0
        self.up = False
        """It listens."""
        self.gone = asyncio.Event()
        self._offer = offer
        self._channel: Channel | None = None
        self._texts: Texts | None = None
        self._taking: dict[int, asyncio.Task[object]] = {}
        self._taken: dict[int, Place] = {}

    def __str__(self) -> str:
        return f"worker {self.number} (process {self.pid})"

    # ---- its life

    async def begin(self, sockets: Iterable[tuple[str, list[socket.socket]]], octets: bytes, **orders: object) -> None:
        """Starts a process that listens on these sockets, by section; the rest is `Worker.start`'s.

        Raises:
            ServiceError: it does not; nothing is left of it.
        """
        self.gone.clear()
        try:
            channel = await self._fork()
            for section, given in sockets:
                channel.tell("sockets", section=section, sockets=given)
            async with asyncio.timeout(START_S):
                await channel.ask("start", octets, **orders)
        except (Gone, TimeoutError):
            raise ServiceError(f"{self} did not start: {await self.bury(0)}; see the log") from None
        except BaseException:
            await self.bury(CLOSE_S)  # it ends by itself, and may have more to say
            raise
        self.up, self.since_s = True, time.time()

    async def _fork(self) -> Channel:
        pairs = [socket.socketpair() for _ in range(2)]
        (ours, _), (hearing, _) = pairs
        try:
            self.pid = await self._offer.nursery.fork(*(theirs for _, theirs in pairs))
        except BaseException:
            ours.close()
            hearing.close()
            raise
        finally:
            for _, theirs in pairs:
                theirs.close()
        self._channel = Channel(ours, self)
        self._texts = Texts(self._offer.written)
        hearing.setblocking(False)
        try:
            await asyncio.get_running_loop().create_unix_connection(self._texts.itself, sock=hearing)
        except BaseException:
            hearing.close()
            self._texts.connection_lost(None)
            raise
        return self._channel

    def tell(self, what: str, *, sockets: Sequence[socket.socket] = (), **facts: object) -> None:
        if self._channel is not None:
            self._channel.tell(what, sockets=sockets, **facts)

    async def ask(self, what: str, octets: bytes = b"", **facts: object) -> Facts:
        """Its answer.

        Raises:
            ServiceError: its refusal; Gone where it has ended.
        """
        if self._channel is None:
            raise Gone(f"{self} has ended")
        return await self._channel.ask(what, octets, **facts)

    async def bury(self, patience_s: float) -> str:
        """Waits so long for its end, and kills it; returns how it ended.

        Raises:
            NurseryGone: nobody knows.
        """
        self.up = False
        if not self.pid:
            return "there is no process"
        with suppress(TimeoutError):
            await asyncio.wait_for(self.gone.wait(), patience_s)
        self.give_up()
        self.kill()
        ended = in_words(await self._offer.nursery.end_of(self.pid))
        if self._texts is not None:
            await self._texts.over
        self.pid = 0
        return ended

    def give_up(self) -> None:
        """Hears it no more, and takes back what it had."""
        if self._channel is not None:
            self._channel.close()
        for task in self._taking.values():
            task.cancel()
        for place in self._taken.values():
            place.leave()
        self._taken.clear()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # nobody else can have its ID before the nursery has looked

    # ---- what it says

    def ended(self) -> None:
        self.gone.set()

    def told(self, message: Message) -> None:
        if message.what == "leave":  # behind the beginning of the question that it may be about
            asyncio.get_running_loop().call_soon(self._leave, message.facts["place"])

    async def asked(self, message: Message) -> Facts:
        match message.what:
            case "take":
                await self._take(**message.facts)
            case "ensure":
                await self._offer.redirects(message.facts["account"])
        return {}

    def _leave(self, number: int) -> None:
        """A session has ended, or does not wait for its turn any more."""
        place, taking = self._taken.pop(number, None), self._taking.get(number)
        if place is not None:
            place.leave()
        elif taking is not None:
            taking.cancel()

    async def _take(self, place: int, account: str, protocol: str, limit: int, patience_s: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._taking[place] = task
        try:
            self._taken[place] = await self._offer.places.take(account, protocol, limit, patience_s)
        finally:
            del self._taking[place]
