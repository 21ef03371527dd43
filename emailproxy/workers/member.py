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
from emailproxy.workers.nursery import CLOSE_S, Nursery, NurseryGone, in_words

START_S = 30 * SECONDS  # for a worker to listen; a single server takes a fraction of one
ANSWER_S = 3 * SECONDS  # for an answer that needs no work; its event loop holds none up for a tenth of one
LOOK_S = 10 * SECONDS  # between two looks at whether it answers
MOST_UNANSWERED = 3  # looks; by then it has been silent for half a minute
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
        self._starting: asyncio.Timeout | None = None
        self._unanswered = 0
        """Looks at whether it is there."""
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
        self._unanswered = 0
        try:
            await self._start(sockets, octets, orders)
        except (Gone, TimeoutError):
            raise ServiceError(f"{self} did not start: {await self.bury(0)}; see the log") from None
        except BaseException:
            self.tell("stop")
            await self.bury(CLOSE_S)  # it may have more to say
            raise
        self.up, self.since_s = True, time.time()

    async def _start(
        self, sockets: Iterable[tuple[str, list[socket.socket]]], octets: bytes, orders: dict[str, object]
    ) -> None:
        async with asyncio.timeout(START_S) as self._starting:
            try:
                channel = await self._fork()
                for section, given in sockets:
                    channel.tell("sockets", section=section, sockets=given)
                await channel.ask("start", octets, **orders)
            finally:
                self._starting = None

    def hasten(self) -> None:
        """All ends: a start that is under way may take `CLOSE_S` still."""
        if self._starting is not None and not self._starting.expired():
            self._starting.reschedule(asyncio.get_running_loop().time() + CLOSE_S)

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

    async def ask_briefly(self, what: str) -> Facts | None:
        """Its answer to what needs no work; None where it hangs or has ended."""
        with suppress(Gone, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                return await self.ask(what)
        return None

    async def watch(self) -> None:
        """Waits for its end, and kills it where it hangs: the system goes on giving it its share of new connections.

        Our own looks are counted, not seconds: where all of us were stopped together, and go on, one is late.
        """
        while not await self._ends_within(LOOK_S):
            if self._unanswered >= MOST_UNANSWERED:
                log.error("%s has not answered for %.0f s, and is killed", self, LOOK_S * self._unanswered)
                self.kill()
            self._unanswered += 1
            self.tell("ping")

    async def _ends_within(self, patience_s: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.gone.wait(), patience_s)
        return self.gone.is_set()

    async def bury(self, patience_s: float) -> str:
        """Waits so long for its end, and kills it; returns how it ended."""
        self.up = False
        if not self.pid:
            return "there is no process"
        await self._ends_within(patience_s)
        self.give_up()
        self.kill()
        self.gone.set()
        if self._texts is not None:
            await self._texts.over
        try:
            ended = in_words(await self._offer.nursery.end_of(self.pid))
        except NurseryGone:
            ended = "nobody knows how"
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
        if self.pid and not self.gone.is_set():  # once it has ended, another one's process may have its ID
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    # ---- what it says

    def ended(self) -> None:
        self.gone.set()

    def told(self, message: Message) -> None:
        match message.what:
            case "pong":
                self._unanswered = 0
            case "leave":  # behind the beginning of the question that it may be about
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
