"""Programs that the configuration names: run without a shell, bounded in time and output, their errors logged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from emailproxy.config.model import KIB, SECONDS
from emailproxy.errors import EmailProxyError, one_line

MAX_OUTPUT = 64 * KIB  # octets: the longest tokens are 16 KiB
MAX_ERROR_LINES = 50  # of standard error; a program that goes on for longer repeats itself
MAX_ERROR_TEXT = 16 * KIB  # octets of standard error; what comes after is read and dropped
LINGER_S = 1 * SECONDS  # a daemon that the program started may hold its standard error open for ever

if sys.platform == "win32":
    from asyncio.windows_utils import Popen  # its pipes are such as an event loop can read
else:
    from subprocess import Popen

OURS = ("NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_")
"""Variables, and beginnings of variables, that systemd means for its service's own process (sd_notify(3),
sd_listen_fds(3), sd_watchdog_enabled(3))."""

log = logging.getLogger("emailproxy.oauth")


class CommandFailed(EmailProxyError):
    """A program could not be run, failed, printed too much, or did not end in time."""


class Commands:
    """Runs programs for the configuration."""

    def __init__(self, hidden: Collection[str] = ()) -> None:
        """`hidden` names environment variables that no program may see: those that hold secrets."""
        self._hidden = frozenset(hidden)

    def hide(self, names: Collection[str]) -> None:
        """Further environment variables that no program may see: another configuration names them."""
        self._hidden |= frozenset(names)

    async def run(self, arguments: Sequence[str], *, what: str, timeout_s: float, stdin: bytes = b"") -> bytes:
        """What the program prints to standard output; what it prints to standard error goes to the log.

        Args:
            what: whose program it is, for log and errors: "the token_command of ada@example.org".
            timeout_s: after so many seconds it is killed, with all that it started in its process group.

        Raises:
            CommandFailed: there is no output to use.
        """
        run = Run(what, self._started(arguments, what))
        connecting = asyncio.create_task(run.connect(stdin))
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(connecting)
                await run.output.over.wait()
                await run.exited.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await run.errors.over.wait()
            return run.result()
        except TimeoutError:
            run.kill()
            raise CommandFailed(f"{what} did not end within {timeout_s:g} s, and was killed") from None
        except BaseException:  # nobody waits for it any more
            run.kill()
            raise
        finally:
            await asyncio.wait({connecting})  # a moment; half connected, its pipes would stay open
            run.close()

    def _started(self, arguments: Sequence[str], what: str) -> subprocess.Popen[bytes]:
        """The program, with a session of its own: a group to be killed as a whole, and no terminal to ask at."""
        if not arguments or any("\0" in argument for argument in arguments):
            raise CommandFailed(f"{what} is empty or holds a NUL; name a program and its arguments")
        try:
            # not by the event loop: uvloop's leaves its own ends of the pipes open in the program and its children
            return Popen(  # noqa: S603 - the configuration's own words, and no shell
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(self._hidden),
                start_new_session=True,
            )
        except OSError as error:
            program = one_line(arguments[0])
            raise CommandFailed(
                f"{what} cannot be run: {program}: {error.strerror}; give the program's full path"
            ) from None


class Run:
    """One program, from its start to its end."""

    def __init__(self, what: str, process: subprocess.Popen[bytes]) -> None:
        self._what = what
        self._process = process
        self._input = Input()
        self.output = Output(self.kill)
        self.errors = Errors(what)
        self.exited = asyncio.Event()
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._reap, args=(loop,), name="command", daemon=True).start()

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(self.exited.set)

    async def connect(self, stdin: bytes) -> None:
        """Reads what it prints from now on, and feeds it."""
        loop = asyncio.get_running_loop()
        for protocol, pipe in ((self.output, self._process.stdout), (self.errors, self._process.stderr)):
            await loop.connect_read_pipe(partial(same, protocol), pipe)
        await loop.connect_write_pipe(partial(same, self._input), self._process.stdin)
        self._input.feed(stdin)

    def result(self) -> bytes:
        """What it printed.

        Raises:
            CommandFailed: it failed, or printed too much.
        """
        if self.output.is_too_much:
            raise CommandFailed(f"{self._what} printed more than {MAX_OUTPUT // KIB} KiB, and was killed")
        if code := self._process.returncode:
            raise CommandFailed(f"{self._what} {ending(code)}; what it said is in the log")
        return bytes(self.output.data)

    def kill(self) -> None:
        """Ends the program and all that it started in its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it is gone
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Lets go of its pipes, which something that it started may hold open still."""
        process = self._process
        for protocol, pipe in (
            (self.output, process.stdout),
            (self.errors, process.stderr),
            (self._input, process.stdin),
        ):
            protocol.close()
            if not protocol.was_connected and pipe is not None:
                pipe.close()


def same(protocol: Pipe) -> Pipe:
    return protocol


class Pipe(asyncio.Protocol):
    """One of a program's pipes."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        """It is closed, or there is no more to learn of it."""
        self.was_connected = False
        """The event loop has taken it over."""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.was_connected = True
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.over.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Input(Pipe):
    """A program's standard input."""

    def feed(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():  # the program may have ended already
            self._transport.write(data)  # it need not read it
            self._transport.close()  # once that is written

    def close(self) -> None:
        to = self._transport
        if to is not None and (not to.is_closing() or to.get_write_buffer_size()):
            to.abort()  # what was not read by now, nobody will read


class Output(Pipe):
    """A program's standard output, up to what is too much."""

    def __init__(self, stop: Callable[[], None]) -> None:
        super().__init__()
        self.data = bytearray()
        self._stop = stop

    @property
    def is_too_much(self) -> bool:
        return len(self.data) > MAX_OUTPUT

    def data_received(self, data: bytes) -> None:
        self.data += data[: MAX_OUTPUT + 1 - len(self.data)]
        if self.is_too_much and not self.over.is_set():
            self._stop()
            self.over.set()


class Errors(Pipe):
    """A program's standard error, on its way to the log."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what
        self._line = bytearray()
        self._left = MAX_ERROR_TEXT
        self._lines = 0

    def data_received(self, data: bytes) -> None:
        self._line += data[: self._left]  # the rest is dropped: nobody reads it, and nobody blocks on it
        self._left = max(0, self._left - len(data))
        while (end := self._line.find(b"\n")) >= 0:
            self._log(bytes(self._line[:end]))
            del self._line[: end + 1]

    def connection_lost(self, exc: Exception | None) -> None:
        self._log(bytes(self._line))
        self._line.clear()
        super().connection_lost(exc)

    def _log(self, line: bytes) -> None:
        text = one_line(line.decode("utf-8", "replace"))
        if text and self._lines < MAX_ERROR_LINES:
            self._lines += 1
            log.info("%s says: %s", self._what, text)


def environment(hidden: Collection[str]) -> dict[str, str]:
    """Our environment without what is for us alone."""
    return {name: value for name, value in os.environ.items() if name not in hidden and not name.startswith(OURS)}


def ending(returncode: int) -> str:
    """How a program ended that failed."""
    if returncode > 0:
        return f"failed (exit code {returncode})"
    try:
        return f"was ended by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was ended by signal {-returncode}"
