"""The real command line, as the processes that a user starts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.e2e.harness.run import Outcome, run

START_S = 30.0
STOP_S = 5.0
"""What the server promises: SIGTERM ends it within this."""
END_S = 30.0  # for a command that has all it needs, on a busy machine
CHECKOUT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-m", "emailproxy")


def environment(home: Path) -> dict[str, str]:
    """A user's environment with a home of its own: nothing of this machine's configuration gets in."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(CHECKOUT), "LANG": "C.UTF-8"}


async def emailproxy(
    *arguments: str | Path,
    home: Path,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> Outcome:
    """Runs one of the commands to its end, in the folder `home`."""
    full = environment(home) | dict(env or {})
    return await run(*COMMAND, *arguments, stdin=stdin, env=full, cwd=home, timeout=timeout)


@dataclass
class Program:
    """One of the commands while it runs. Whatever it prints is in `output`."""

    process: asyncio.subprocess.Process
    output: str = ""
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _listening: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    async def printed(self, pattern: str, *, start: int = 0, timeout: float = 20.0) -> re.Match[str]:
        """Waits until the output from `start` on has a match."""
        found: re.Match[str] | None = None

        def seen() -> bool:
            nonlocal found
            found = re.search(pattern, self.output[start:])
            return found is not None

        try:
            async with asyncio.timeout(timeout), self._news:
                await self._news.wait_for(seen)
        except TimeoutError:
            raise AssertionError(f"{pattern!r} was not printed, but:\n{self.output[start:]}") from None
        assert found is not None
        return found

    async def listen(self) -> None:
        """Takes the output until its end."""
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(65_536):
            async with self._news:
                self.output += data.decode(errors="replace")
                self._news.notify_all()

    def begin_to_listen(self) -> asyncio.Task[None]:
        self._listening = asyncio.create_task(self.listen())
        return self._listening

    async def end(self, timeout: float = END_S) -> int:
        """Waits for the end, and that of the output; returns the exit code."""
        code = await asyncio.wait_for(self.process.wait(), timeout)
        if self._listening is not None:
            await asyncio.wait({self._listening}, timeout=timeout)  # a child of its own may have it still
        return code

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends it as its user would, and returns the exit code."""
        self.process.send_signal(how)
        return await self.end(STOP_S)

    async def close(self) -> None:
        """Ends it, if it has not ended by itself: by force, where it does not heed SIGTERM."""
        if self.process.returncode is None:
            with contextlib.suppress(TimeoutError, ProcessLookupError):
                await self.stop()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class Proxy(Program):
    """A running `emailproxy serve`."""

    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    @property
    def resident_kib(self) -> int:
        """The memory that the process holds now (VmRSS of proc(5)), in KiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)[0])

    async def consent_url(self, account: str, *, start: int = 0, timeout: float = 20.0) -> str:
        """The URL that the server asks the account's owner to visit."""
        line = rf"Please visit the following URL to authenticate account {re.escape(account)}: (\S+)\r?\n"
        return (await self.printed(line, start=start, timeout=timeout))[1]


ProgramType = TypeVar("ProgramType", bound=Program)


@contextlib.asynccontextmanager
async def running(
    *arguments: str | Path,
    home: Path,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    through: Sequence[str] = (),
    kind: type[ProgramType],
) -> AsyncIterator[ProgramType]:
    """Starts one of the commands in the folder `home`, and ends it if it has not ended by itself.

    Args:
        through: a command that becomes the one behind it (exec), such as unshare(1).
    """
    with tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        process = await asyncio.create_subprocess_exec(
            *through, *COMMAND, *arguments,
            stdin=given, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=environment(home) | dict(env or {}), cwd=home,
        )  # fmt: skip
    program = kind(process)
    listening = program.begin_to_listen()
    try:
        yield program
    finally:
        await program.close()
        await listening


@contextlib.asynccontextmanager
async def serve(
    *arguments: str | Path,
    log_file: Path,
    home: Path,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] = ("serve",),
    through: Sequence[str] = (),
) -> AsyncIterator[Proxy]:
    """Runs `emailproxy serve` in the folder `home`, and yields it when it says READY=1 (sd_notify(3))."""
    with notifications() as notified:
        notify = {"NOTIFY_SOCKET": notified.getsockname()}
        full = notify | dict(env or {})
        async with running(*command, *arguments, home=home, env=full, through=through, kind=Proxy) as proxy:
            proxy.log_file = log_file
            async with asyncio.timeout(START_S):
                await _ready(notified, proxy)
            yield proxy


@contextlib.contextmanager
def notifications() -> Iterator[socket.socket]:
    """A service manager's socket (sd_notify(3)); its path is short, as a socket's must be."""
    with (
        tempfile.TemporaryDirectory(prefix="notify-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
    ):
        notified.bind(f"{folder}/socket")
        notified.setblocking(False)
        yield notified


async def _ready(notified: socket.socket, program: Program) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.create_task(program.process.wait())
    try:
        while True:
            said = asyncio.create_task(loop.sock_recv(notified, 4096))
            done, _ = await asyncio.wait({said, ended}, return_when=asyncio.FIRST_COMPLETED)
            if said not in done:
                said.cancel()
                raise AssertionError(f"the proxy ended with {program.process.returncode}:\n{program.output}")
            if b"READY=1" in said.result().split(b"\n"):
                return
    finally:
        ended.cancel()
