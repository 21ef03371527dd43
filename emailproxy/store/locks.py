"""Locks by name, across tasks and processes; none outlives its holder, not even a killed one."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from emailproxy.store import files
from emailproxy.store.folder import StateFolder
from emailproxy.store.threads import FileThreads

FIRST_WAIT_S = 0.005  # between two tries of a lock that another process holds
LONGEST_WAIT_S = 0.05

Release = Callable[[], None]
"""Lets a lock go."""


class Held(Exception):
    """Another task or process holds the lock."""


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
            release = await _locked(path)
            self._holders[name] = task
            try:
                yield
            finally:
                del self._holders[name]
                release()

    def is_held(self, name: str) -> bool:
        """Whether any task or process holds the lock of this file name now. Waits for nobody, and makes no file; blocks
        for a moment.

        Raises:
            StateError: the lock file cannot be opened.
        """
        return _is_held(self._state.locks / f"{name}.lock")

    def _prepare(self, path: Path) -> None:
        self._state.make(self._state.locks)
        if files.as_root():  # made by root, the file would shut the service's user out
            files.create_empty(path)


async def _locked(path: Path) -> Release:
    wait_s = FIRST_WAIT_S
    while True:
        try:
            return _acquire(path)  # some system calls that do not wait: no thread, and nothing to cancel
        except Held:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        except OSError as error:
            files.failed("lock", path, error)


def _is_held(path: Path) -> bool:
    try:
        release = _acquire_there(path) if files.POSIX else _acquire(path)
    except FileNotFoundError:
        return False
    except Held:
        return True
    except OSError as error:
        files.failed("lock", path, error)
    release()
    return False


def _acquire(path: Path) -> Release:
    """Takes the lock without waiting; returns what lets it go.

    Raises:
        Held: another task or process holds it.
        OSError: its file cannot be made or opened.
    """
    from filelock import FileLock, Timeout

    # One object a holder: flock excludes other descriptors of this process, too.
    lock = FileLock(path, mode=files.FILE_MODE, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise Held from None
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return _acquire_unwritable(path)
    return lock.release


def _acquire_there(path: Path) -> Release:
    """The same lock, where its file is there: a tenth of the time, for who asks about thousands."""
    try:
        return _flocked(path, os.O_RDWR)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return _acquire_unwritable(path)


def _acquire_unwritable(path: Path) -> Release:
    """The same lock where the file system is read-only: tokens are renewed there, too, and live in memory until it is
    writable again. flock(2) takes a descriptor that can only read; `FileLock` opens its file to write.
    """
    return _flocked(path, os.O_RDONLY)


def _flocked(path: Path, how: int) -> Release:
    import fcntl  # not on Windows, where nobody comes here

    descriptor = os.open(path, how | files.OPEN_FLAGS)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Held from None
    except BaseException:
        os.close(descriptor)
        raise
    return lambda: os.close(descriptor)
