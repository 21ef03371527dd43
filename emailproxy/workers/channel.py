"""What the first process and a worker say to each other: messages over a pair of sockets, with sockets in them."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from emailproxy.config.model import KIB
from emailproxy.errors import EmailProxyError, ServiceError, system_words

HEAD = struct.Struct("!IIB")
"""Before each message: how many octets its facts have, how many octets come behind them, how many sockets with them."""
CHUNK = 64 * KIB
MAX_SOCKETS = 253  # of one message: SCM_MAX_FD of Linux's net/scm.h
AGAIN_S = 0.1  # where the system had no room
NO_ROOM = frozenset({errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})
"""It passes: memory, or sockets under way that the other process has not taken yet (unix(7))."""
OTHERS_END = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN})

log = logging.getLogger("emailproxy.workers")

Facts = dict[str, Any]


class Gone(ServiceError):
    """The other process has ended."""


@dataclass(frozen=True, slots=True)
class Message:
    what: str
    facts: Facts
    octets: bytes = field(default=b"", repr=False)
    """What may hold secrets: a configuration, a request's body."""
    sockets: list[socket.socket] = field(default_factory=list)


class Hearer(Protocol):
    """What a process does about the other's messages."""

    def told(self, message: Message) -> None:
        """One that wants no answer; in the order in which they were sent, also before a question that came later."""

    async def asked(self, message: Message) -> Facts:
        """The answer.

        Raises:
            EmailProxyError: there is none; the asker gets the text.
        """

    def ended(self) -> None:
        """The other process has ended, or will not say any more."""


class Channel:
    """One end."""

    def __init__(self, end: socket.socket, hearer: Hearer) -> None:
        self._end = end
        self._hearer = hearer
        self._loop = asyncio.get_running_loop()
        self._unread = bytearray()
        self._sockets: list[socket.socket] = []
        self._unsent: deque[tuple[memoryview, Sequence[socket.socket]]] = deque()
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Facts]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._open = True
        end.setblocking(False)
        self._loop.add_reader(end.fileno(), self._read)

    # ---- to the other process

    def tell(self, what: str, *, sockets: Sequence[socket.socket] = (), **facts: object) -> None:
        """Wants no answer. The sockets are closed here once they are sent."""
        self._send({"what": what, **facts}, b"", sockets)

    async def ask(self, what: str, octets: bytes = b"", **facts: object) -> Facts:
        """The other process's answer.

        Raises:
            ServiceError: its refusal.
            Gone: it ended.
        """
        if not self._open:
            raise Gone("the process has ended")
        number = next(self._numbers)
        answer: asyncio.Future[Facts] = self._loop.create_future()
        self._waiting[number] = answer
        try:
            self._send({"what": what, "ask": number, **facts}, octets)
            return await answer
        finally:
            del self._waiting[number]

    def _send(self, facts: Facts, octets: bytes = b"", sockets: Sequence[socket.socket] = ()) -> None:
        body = json.dumps(facts).encode()
        head = HEAD.pack(len(body), len(octets), len(sockets))
        idle = not self._unsent
        self._unsent.append((memoryview(head + body + octets), sockets))
        if idle or not self._open:
            self._flush()

    def _flush(self) -> None:
        while self._unsent and self._open:
            view, sockets = self._unsent[0]
            try:
                sent = _sent(self._end, view, sockets)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._end.fileno(), self._flush)
                return
            except OSError as error:
                if error.errno in NO_ROOM:
                    self._loop.remove_writer(self._end.fileno())
                    self._loop.call_later(AGAIN_S, self._flush)
                    return
                if error.errno not in OTHERS_END:  # of which the reader learns, too
                    log.error("a message to another process of emailproxy cannot be sent: %s", system_words(error))
                    self._loop.call_soon(self._break)
                break
            _close(sockets)
            if sent < len(view):
                self._unsent[0] = view[sent:], ()
            else:
                self._unsent.popleft()
        if self._open:
            self._loop.remove_writer(self._end.fileno())
        for _, sockets in self._unsent:
            _close(sockets)
        self._unsent.clear()

    # ---- from the other process

    def _read(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._end, CHUNK, MAX_SOCKETS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            self._sockets.append(socket.socket(fileno=descriptor))
            self._sockets[-1].set_inheritable(False)
        if not data:
            self._break()
            return
        self._unread += data
        while self._take_message():
            pass

    def _take_message(self) -> bool:
        """Whether there was a whole one."""
        if len(self._unread) < HEAD.size:
            return False
        length, further, sockets = HEAD.unpack_from(self._unread)
        middle, end = HEAD.size + length, HEAD.size + length + further
        if len(self._unread) < end:
            return False
        facts = json.loads(self._unread[HEAD.size : middle])
        octets = bytes(self._unread[middle:end])
        del self._unread[:end]
        with_it, self._sockets = self._sockets[:sockets], self._sockets[sockets:]
        self._understand(facts, octets, with_it)
        return True

    def _understand(self, facts: Facts, octets: bytes, sockets: list[socket.socket]) -> None:
        if "answer" in facts:
            waiting = self._waiting.get(facts["answer"])
            if waiting is not None and not waiting.done():
                if "error" in facts:
                    waiting.set_exception(ServiceError(facts["error"]))
                else:
                    waiting.set_result(facts["facts"])
            return
        number = facts.pop("ask", None)
        message = Message(facts.pop("what"), facts, octets, sockets)
        if number is None:
            self._hearer.told(message)
            return
        task = self._loop.create_task(self._answer(number, message))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, number: int, message: Message) -> None:
        try:
            answer: Facts = {"facts": await self._hearer.asked(message)}
        except EmailProxyError as error:
            answer = {"error": str(error)}
        except Exception:
            log.exception("the question %s met a fault of emailproxy", message.what)
            answer = {"error": "emailproxy met a fault of its own; see its log"}
        self._send({"answer": number, **answer})

    def _break(self) -> None:
        """Neither of us can go on without an answer that never comes: it counts as the other's end."""
        if self._open:
            self.close()
            self._hearer.ended()

    def close(self) -> None:
        """Says and hears no more; to say so twice does no harm."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._end.fileno())
        self._loop.remove_writer(self._end.fileno())
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Gone("the process has ended"))
        _close(self._sockets)
        self._flush()
        self._end.close()


def _sent(end: socket.socket, view: memoryview, sockets: Sequence[socket.socket]) -> int:
    """How many octets went."""
    if sockets:
        return socket.send_fds(end, [view], [sock.fileno() for sock in sockets])
    return end.send(view)


def _close(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
