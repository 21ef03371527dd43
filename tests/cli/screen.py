"""A command at a terminal of its own, and what that shows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.cli.site import Site, unchecked
from tests.e2e.harness.proxy import COMMAND, END_S, environment

AGAIN_S = 5.0  # from Ctrl-C to the next: a command that heeds the first has ended by then


@dataclass
class Terminal:
    """A command at a terminal of its own."""

    master: int
    process: asyncio.subprocess.Process
    output: str = ""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def read(self) -> None:
        try:
            data = os.read(self.master, 65_536)
        except OSError:  # EIO: the other end is closed
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self.master)
        self.output += data.decode(errors="replace")
        self._news.set()

    async def shows(self, text: str) -> None:
        async with asyncio.timeout(20):
            while text not in self.output:
                self._news.clear()
                await self._news.wait()

    async def type(self, prompt: str, answer: str) -> None:
        await self.shows(prompt)
        self.output = self.output.replace(prompt, "", 1)
        os.write(self.master, f"{answer}\n".encode())

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.write(self.master, b"\x03")

    async def interrupted(self) -> int:
        """Ctrl-C at a question, and the exit code: who just begins to wait for keys may miss the first."""
        async with asyncio.timeout(2 * END_S):
            while True:
                self.interrupt()
                with contextlib.suppress(TimeoutError):
                    return await asyncio.wait_for(self.process.wait(), AGAIN_S)

    async def end(self) -> int:
        """Waits for the end, and returns the exit code."""
        return await asyncio.wait_for(self.process.wait(), END_S)


@contextlib.asynccontextmanager
async def terminal(site: Site, *arguments: str | Path, env: Mapping[str, str] | None = None) -> AsyncIterator[Terminal]:
    """One of the commands that take a configuration."""
    launcher = (  # makes its standard input the terminal that it may ask at
        "import fcntl, os, sys, termios\n"
        "os.setsid()\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    master, slave = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", launcher, *COMMAND, *unchecked(*arguments), "--config", site.config),
        stdin=slave, stdout=slave, stderr=slave, env=environment(site.folder) | dict(env or {}), cwd=site.folder,
    )  # fmt: skip
    os.close(slave)
    shown = Terminal(master, process)
    asyncio.get_running_loop().add_reader(master, shown.read)
    try:
        yield shown
    finally:
        asyncio.get_running_loop().remove_reader(master)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        os.close(master)
