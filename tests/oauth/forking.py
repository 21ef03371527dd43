"""Processes to kill: one that has imported everything forks them, which takes a fiftieth of the time of a start.

``python -m MODULE ARGUMENTS`` is such a module's own; it calls `fork_for_each_line`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.oauth.world import until

# ---- in the test


@dataclass
class Forks:
    """Makes processes."""

    process: Process

    async def one(self) -> int:
        """The number of a process that is at work now; it lasts until it is killed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        return int(await self.process.stdout.readline())


@asynccontextmanager
async def forks(module: str, *arguments: object) -> AsyncIterator[Forks]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *map(str, arguments)),
        cwd=Path(__file__).parents[2],
        stdin=PIPE,
        stdout=PIPE,
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield Forks(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def end(number: int) -> None:
    """Kills the process, and waits until its sockets and locks are free."""
    os.kill(number, signal.SIGKILL)
    await until(lambda: not is_alive(number))


def is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


# ---- in the process that forks


def fork_for_each_line(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """A fork for each line that is read; `work` calls `at_work` once it is, and then does not end."""
    import aiohttp  # noqa: F401 - once, and not in each fork

    logging.getLogger("emailproxy").setLevel(logging.ERROR)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody is waited for
    print("ready", flush=True)
    for _ in sys.stdin:
        if os.fork() == 0:
            asyncio.run(work())
            os._exit(1)


def at_work() -> None:
    print(os.getpid(), flush=True)
