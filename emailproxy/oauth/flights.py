"""One at a time: whoever asks for what is already under way waits for the same result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

CLOSE_S = 1.5
"""How long work under way may take when the process stops: a token that was just granted should reach the disk."""


class Flights(Generic[T]):
    """Work by key. A caller that is cancelled cancels nothing for the others, nor the work."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[T]] = {}

    def join(self, key: Hashable) -> asyncio.Task[T] | None:
        """The work under way for this key, if any."""
        return self._tasks.get(key)

    def start(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The work under way for this key, begun now where there is none. Await it through `asyncio.shield`."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.get_running_loop().create_task(work())
            task.add_done_callback(lambda done: self._ended(key, done))
        return task

    async def run(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return await asyncio.shield(self.start(key, work))

    def _ended(self, key: Hashable, task: asyncio.Task[T]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # all who waited may have left: that is no "exception was never retrieved"

    async def close(self, patience_s: float = CLOSE_S) -> None:
        """Lets work under way end, then cancels it."""
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=patience_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
