"""File work beside the event loop: a small pool of its own, so that nothing else can starve it, nor it others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

FILE_THREADS = 2

T = TypeVar("T")


class FileThreads:
    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(FILE_THREADS, thread_name_prefix="state-files")

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns. Cancelling waits for its end, as a lock must not be let go of under a write."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError:
                    continue  # cancelled again: the first one is raised below
            raise

    def close(self) -> None:
        """Ends the threads, after what they are doing."""
        self._pool.shutdown()
