"""Locks by name, across tasks and processes; none outlives its holder, not even a killed one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from filelock import FileLock, Timeout

from emailproxy.store import files
from emailproxy.store.folder import StateFolder
from emailproxy.store.threads import FileThreads

FIRST_WAIT_S = 0.005  # between two tries of a lock that another process holds
LONGEST_WAIT_S = 0.05


class FolderLocks:
    """The locks of one state folder."""

    def __init__(self, state: StateFolder, threads: FileThreads) -> None:
        self._state = state
        self._threads = threads
        self._tasks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._holders: dict[str, asyncio.Task[object] | None] = {}

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Holds the lock of this file name. Waiting costs no thread, and a cancelled waiter holds nothing.

        Raises:
            StateError: the lock file cannot be made or opened.
            RuntimeError: this task holds it already.
        """
        task = asyncio.current_task()
        if task is not None and self._holders.get(name) is task:
            raise RuntimeError(f"this task holds the lock {name} already")
        async with self._tasks.setdefault(name, asyncio.Lock()):
            path = self._state.locks / f"{name}.lock"
            await self._threads.run(lambda: self._prepare(path))
            lock = await _locked(path)
            self._holders[name] = task
            try:
                yield
            finally:
                del self._holders[name]
                lock.release()

    async def is_held(self, name: str) -> bool:
        """Whether any task or process holds the lock of this file name now. Waits for nobody, and makes no file.

        Raises:
            StateError: the lock file cannot be opened.
        """
        return await self._threads.run(lambda: _is_held(self._state.locks / f"{name}.lock"))

    def _prepare(self, path: Path) -> None:
        self._state.make(self._state.locks)
        if files.as_root():  # made by root, the file would shut the service's user out
            files.create_empty(path)


async def _locked(path: Path) -> FileLock:
    # One object a holder: flock excludes other descriptors of this process, too.
    lock = FileLock(path, mode=files.FILE_MODE, thread_local=False)
    wait_s = FIRST_WAIT_S
    while True:
        try:
            lock.acquire(blocking=False)  # two system calls that do not wait: no thread, and nothing to cancel
        except Timeout:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        except OSError as error:
            files.failed("lock", path, error)
        else:
            return lock


def _is_held(path: Path) -> bool:
    lock = FileLock(path, mode=files.FILE_MODE, thread_local=False)
    try:
        if not path.exists():
            return False
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError as error:
        files.failed("lock", path, error)
    lock.release()
    return False
