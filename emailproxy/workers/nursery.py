"""The process that forks workers, at any time later: it has one thread, no event loop, and nothing else to do."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from emailproxy.config.model import SECONDS
from emailproxy.errors import ServiceError

ANSWER_S = 8 * SECONDS  # for the nursery to fork or to bury, which takes milliseconds; less than CLOSE_S of cli.manager
CLOSE_S = 7 * SECONDS  # for a worker to end, once its sessions have: less than a service manager gives us
LOOK_S = 0.05  # between two looks at workers that are about to end
FORK, END = b"F", b"E"
NUMBER = struct.Struct("!i")
"""A process's ID, or how it ended (`os.waitpid`)."""
LEFT_TO_THE_FIRST = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1")
"""A terminal and a service manager send these to all processes at once. The first one says what comes of it."""

Work = Callable[[socket.socket, socket.socket], NoReturn]
"""What a worker does, with its ends of the channel and of the log."""


log = logging.getLogger("emailproxy.workers")


class NurseryGone(ServiceError):
    """No further worker can be started."""

    def __init__(self) -> None:
        super().__init__("the process that starts workers has ended; emailproxy must be started again")


class Nursery:
    """The first process's end. Forks at once: there may be no thread yet."""

    def __init__(self, work: Work, shut: Callable[[], None]) -> None:
        """`shut` closes what is the first process's alone."""
        self._end, theirs = socket.socketpair()
        gc.freeze()  # the collector would write to every page, and so unshare it
        self._pid = os.fork()
        if self._pid == 0:
            self._end.close()
            shut()
            _tend(theirs, work)
        theirs.close()
        self._end.setblocking(False)
        self._asked: deque[tuple[bytes, asyncio.Future[int]]] = deque()
        """In the order in which it answers, also whoever has left meanwhile."""
        self._closing = self._killed = False
        self._over = asyncio.Event()

    def watch(self) -> None:
        """Hears it from now on, and says so when it ends: workers serve on then."""
        asyncio.get_running_loop().add_reader(self._end.fileno(), self._read)

    async def fork(self, *ends: socket.socket) -> int:
        """A new worker's process ID; `ends` are its own.

        Raises:
            NurseryGone: it cannot.
            ServiceError: the system permits no further process.
        """
        pid = await self._ask(FORK, 0, *ends)
        if pid < 0:
            raise ServiceError(f"no further process can be started: {os.strerror(-pid)}")
        return pid

    async def end_of(self, pid: int) -> int:
        """How a worker ended, as `os.waitpid` has it; it is killed, if it has not.

        Raises:
            NurseryGone: nobody knows.
        """
        return await self._ask(END, pid)

    async def _ask(self, what: bytes, number: int, *ends: socket.socket) -> int:
        answer = self._sent(what, number, *ends)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await answer
        except TimeoutError:
            self._kill()
            raise NurseryGone from None

    def _sent(self, what: bytes, number: int, *ends: socket.socket) -> asyncio.Future[int]:
        """Its answer, later."""
        if self._over.is_set():
            raise NurseryGone
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        try:
            socket.send_fds(self._end, [what + NUMBER.pack(number)], [end.fileno() for end in ends])
        except OSError:
            raise NurseryGone from None
        self._asked.append((what, answer))
        return answer

    def _read(self) -> None:
        try:
            data = self._end.recv(NUMBER.size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if len(data) != NUMBER.size:
            self._ended()
            return
        (number,) = NUMBER.unpack(data)
        what, answer = self._asked.popleft()
        if not answer.done():
            answer.set_result(number)
        elif what == FORK and number > 0:  # a worker that nobody wants any more
            with suppress(NurseryGone):
                self._sent(END, number)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._end.fileno())
        self._over.set()
        how = in_words(os.waitpid(self._pid, 0)[1])
        if not self._closing:
            log.error(
                "the process that starts workers (process %d) ended (%s): all workers serve on, and when one of them "
                "ends, emailproxy does; restart it before that, when it suits",
                *(self._pid, how),
            )
        for _, answer in self._asked:
            if not answer.done():
                answer.set_exception(NurseryGone())
        self._asked.clear()

    def _kill(self) -> None:
        if not self._over.is_set() and not self._killed:  # until it is over nobody else can have its ID
            self._killed = True
            log.error("the process that starts workers (process %d) does not answer, and is killed", self._pid)
            os.kill(self._pid, signal.SIGKILL)

    async def close(self) -> None:
        """Ends it, and workers that are left."""
        self._closing = True
        if not self._over.is_set():
            with suppress(OSError):
                self._end.shutdown(socket.SHUT_WR)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), ANSWER_S)
            self._kill()
            await self._over.wait()
        self._end.close()


def in_words(status: int) -> str:
    """How a process ended."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


# ---- in the nursery's own process


def _tend(end: socket.socket, work: Work) -> NoReturn:
    """Does what it is asked, until the first process has ended."""
    for name in LEFT_TO_THE_FIRST:  # a handler, as what is ignored stays ignored in the programs that workers start
        signal.signal(getattr(signal, name), lambda *_: None)
    workers: set[int] = set()
    try:
        with suppress(OSError):
            while True:
                asked, descriptors, _, _ = socket.recv_fds(end, 1 + NUMBER.size, 2)
                if len(asked) != 1 + NUMBER.size:
                    break
                (number,) = NUMBER.unpack(asked[1:])
                if asked[:1] == END:
                    workers.discard(number)
                    answer = _buried(number)
                else:
                    answer = _forked(end, descriptors, work)
                    if answer > 0:
                        workers.add(answer)
                end.sendall(NUMBER.pack(answer))
        _outlive(workers)
    finally:
        os._exit(0)


def _buried(pid: int) -> int:
    """How this worker ended."""
    os.kill(pid, signal.SIGKILL)  # it is ours, also where it has ended: nobody else has its ID
    return os.waitpid(pid, 0)[1]


def _outlive(workers: set[int]) -> None:
    """These end by themselves, as the first process has; who hangs is killed, as it would keep the ports."""
    last_s = time.monotonic() + CLOSE_S
    while workers and time.monotonic() < last_s:
        pid, _ = os.waitpid(-1, os.WNOHANG)
        workers.discard(pid)
        if not pid:
            time.sleep(LOOK_S)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)


def _forked(end: socket.socket, descriptors: list[int], work: Work) -> int:
    """The new process's ID; below zero it is why there is none."""
    ends = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for sock in ends:
        sock.set_inheritable(False)
    try:
        pid = os.fork()
    except OSError as error:
        pid = -(error.errno or 1)
    if pid == 0:
        try:
            end.close()
            work(*ends)
        finally:
            os._exit(1)
    for sock in ends:
        sock.close()
    return pid
