"""The process that forks workers, at any time later: it has one thread, no event loop, and nothing else to do."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from emailproxy.errors import ServiceError

FORK, END = b"F", b"E"
NUMBER = struct.Struct("!i")
"""A process's ID, or how it ended (`os.waitpid`)."""
LEFT_TO_THE_FIRST = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1")
"""A terminal and a service manager send these to all processes at once. The first one says what comes of it."""

Work = Callable[[socket.socket, socket.socket], NoReturn]
"""What a worker does, with its ends of the channel and of the log."""


class NurseryGone(ServiceError):
    """No further worker can be started."""


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
        self._one_at_a_time = asyncio.Lock()

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
        """How a worker ended, as `os.waitpid` has it. It has been killed, or is about to end.

        Raises:
            NurseryGone: nobody knows.
        """
        return await self._ask(END, pid)

    async def _ask(self, what: bytes, number: int, *ends: socket.socket) -> int:
        loop = asyncio.get_running_loop()
        async with self._one_at_a_time:
            try:
                socket.send_fds(self._end, [what + NUMBER.pack(number)], [end.fileno() for end in ends])
                answer = await loop.sock_recv(self._end, NUMBER.size)
            except OSError:
                answer = b""
        if len(answer) != NUMBER.size:
            raise NurseryGone("the process that starts workers has ended; emailproxy must be started again")
        (found,) = NUMBER.unpack(answer)
        return int(found)

    def close(self) -> None:
        """Ends it; workers live on."""
        self._end.close()
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


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
    try:
        while True:
            asked, descriptors, _, _ = socket.recv_fds(end, 1 + NUMBER.size, 2)
            if len(asked) != 1 + NUMBER.size:
                break
            (number,) = NUMBER.unpack(asked[1:])
            end.sendall(NUMBER.pack(_forked(end, descriptors, work) if asked[:1] == FORK else os.waitpid(number, 0)[1]))
    finally:
        os._exit(0)


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
        end.close()
        work(*ends)
    for sock in ends:
        sock.close()
    return pid
