"""Consents that wait for a person: one INI file each, named by SHA-256 of its `state`.

A file is useless without the `state`, which only the URL holds; a device authorization's is in no URL, and opens with
the account's password alone. Any process with the folder and the `state` can finish a consent.

Which one is an account's says `store.whose`, so that a login reads one file, however many wait.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from pathlib import Path

from emailproxy.errors import StateDamaged, StateError
from emailproxy.secret import Secret
from emailproxy.store import codec, files
from emailproxy.store.base import Pending
from emailproxy.store.folder import StateFolder
from emailproxy.store.locks import FolderLocks
from emailproxy.store.sealing import state_hash
from emailproxy.store.threads import FileThreads
from emailproxy.store.whose import Whose

SUFFIX = ".ini"
LOCK = "pending="  # no account's own lock is called so: `=` is encoded there
MAX_WAITING = 1000  # catch-all sections let any name start one; the oldest make room

log = logging.getLogger(__name__)


class IniPendingStore:
    """A `PendingStore` in the state folder that `IniStore` uses. `close` ends its threads."""

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        self._state = StateFolder(folder.absolute())
        self._now = now
        self._threads = FileThreads()
        self._locks = FolderLocks(self._state, self._threads)
        self._whose = Whose(self._state)
        self._complained: set[str] = set()

    def close(self) -> None:
        self._threads.close()

    async def prepare(self) -> None:
        """Lets logins find what earlier versions have put here as fast as anything else; for the start of a server."""
        with suppress(StateError):  # the file system may be read-only; then they look through all of it
            if not await self._threads.run(self._whose.is_known):
                async with self._locks.hold(LOCK):
                    await self._threads.run(self._make_known)

    async def put(self, pending: Pending) -> None:
        """Keeps a consent, in place of any other of the same account.

        Raises:
            StateError: it cannot be written; what was there is unchanged.
        """
        async with self._locks.hold(LOCK):
            await self._threads.run(lambda: self._put(pending))

    async def by_state(self, state: str) -> Pending | None:
        """The consent that this `state` belongs to, or None."""
        return await self._threads.run(lambda: self._read(state_hash(Secret(state))))

    async def by_account(self, account: str) -> Pending | None:
        """The account's consent, or None."""
        return await self._threads.run(lambda: self._of(account))

    async def claim(self, state: str) -> Pending | None:
        """Takes the consent away: of any number of callers in any number of processes, one gets it."""
        pending = await self._threads.run(lambda: self._claim(state_hash(Secret(state))))
        if pending is not None:
            with suppress(StateError):  # what it would say of the account is harmless, and goes another time
                async with self._locks.hold(LOCK):
                    await self._threads.run(lambda: self._whose.forget(pending.account, pending.state_hash))
        return pending

    async def discard(self, account: str) -> bool:
        """Forgets the account's consent. Returns whether there was one."""
        async with self._locks.hold(LOCK):
            return await self._threads.run(lambda: self._discard(account))

    async def waiting(self) -> list[Pending]:
        """All that wait, oldest first."""
        return await self._threads.run(self._waiting)

    def _path(self, name: str) -> Path:
        return self._state.pending / f"{name}{SUFFIX}"

    def _put(self, pending: Pending) -> None:
        data = codec.dump_pending(pending)
        self._state.make(self._state.pending)
        self._make_known()
        before = self._whose.of(pending.account)
        # In this order: whoever is killed in between leaves what waited before, or a file that nobody has the state of.
        files.write(self._path(pending.state_hash), data)
        self._whose.put(pending.account, pending.state_hash)
        if before is not None and before != pending.state_hash:
            files.remove(self._path(before))
        self._make_room()

    def _make_room(self) -> None:
        """The oldest go; of those that are as good as gone already, others may be met first."""
        surplus = len(files.stems(self._state.pending, SUFFIX)) - MAX_WAITING
        if surplus > 0:
            for name in self._oldest()[:surplus]:
                files.remove(self._path(name))
        self._whose.tidy(lambda name: self._path(name).exists(), at_most=2 * MAX_WAITING)

    def _oldest(self) -> list[str]:
        """All by age: none is written twice."""
        with os.scandir(self._state.pending) as entries:
            ours = [entry for entry in entries if entry.name.endswith(SUFFIX) and not entry.name.startswith(".")]
            return [entry.name.removesuffix(SUFFIX) for entry in sorted(ours, key=lambda one: one.stat().st_mtime_ns)]

    def _discard(self, account: str) -> bool:
        if not self._state.has(self._state.pending):
            return False
        self._make_known()
        name = self._whose.of(account)
        if name is None:
            return False
        removed = files.remove(self._path(name))
        self._whose.forget(account, name)
        return removed

    def _make_known(self) -> None:
        """Puts down whose all of them are, where an earlier version did not."""
        if not self._whose.is_known():
            self._whose.start({pending.account: pending.state_hash for pending in self._waiting()})

    def _claim(self, name: str) -> Pending | None:
        pending = self._read(name)
        return pending if pending is not None and self._remove(pending) else None

    def _remove(self, pending: Pending) -> bool:
        return files.remove(self._path(pending.state_hash))

    def _of(self, account: str) -> Pending | None:
        if not self._whose.is_known():
            mine = [one for one in self._waiting() if one.account == account.casefold()]
            return mine[-1] if mine else None
        name = self._whose.of(account)
        pending = None if name is None else self._read(name)
        return pending if pending is not None and pending.account == account.casefold() else None

    def _waiting(self) -> list[Pending]:
        if not self._state.has(self._state.pending):
            return []
        found = (self._read(name) for name in files.stems(self._state.pending, SUFFIX))
        return sorted((one for one in found if one is not None), key=attrgetter("created_s"))

    def _read(self, name: str) -> Pending | None:
        """One that still waits; an expired one is removed, a damaged one passed over."""
        if not self._state.has(self._state.pending):
            return None
        path = self._path(name)
        try:
            file = files.read(path)
            if file is None:
                return None
            pending = codec.parse_pending(file.data)
            if pending.state_hash != name:
                raise StateDamaged("it is another consent's")
        except StateError as error:
            self._complain(path, error)
            return None
        if pending.expires_s <= self._now():
            with suppress(StateError):  # the file system may be read-only; it has expired all the same
                files.remove(path)
            return None
        return pending

    def _complain(self, path: Path, error: StateError) -> None:
        """Once a file: a login that waits looks many times."""
        if path.name not in self._complained:
            self._complained.add(path.name)
            log.warning("passing over the pending sign-in %s: %s; delete it and log in again", path, error)
