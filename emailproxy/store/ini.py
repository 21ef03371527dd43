"""The default token store: a folder of INI files, one an account, atomic, locked, 0600."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from emailproxy.errors import StateDamaged, StateError
from emailproxy.store import codec, files, names
from emailproxy.store.base import Record
from emailproxy.store.folder import StateFolder
from emailproxy.store.locks import FolderLocks
from emailproxy.store.sealing import again
from emailproxy.store.threads import FileThreads

SUFFIX = ".ini"

log = logging.getLogger(__name__)


class Seen(NamedTuple):
    """An account's file as it was at one moment."""

    is_locked: bool
    """Whether somebody was about to change it."""
    record: Record | None
    error: StateError | None = None
    """Why it cannot be used."""


class IniStore:
    """A `TokenStore`. Any number of processes may share the folder; each reads what the last one wrote.

    Files are read and written in threads of its own: `close` ends them.
    """

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        self._state = StateFolder(folder.absolute())
        self._accounts_in = f"{self._state.accounts}{os.sep}"
        self._now = now
        self._threads = FileThreads()
        self._locks = FolderLocks(self._state, self._threads)
        self._loads: dict[str, asyncio.Task[Record | None]] = {}
        """Those whose reading has not begun."""

    def prepare(self) -> None:
        """Makes the folders and clears up after killed processes; for the start of a server. Blocks.

        Raises:
            StateExposed: a folder is open to other users.
            StateError: a folder cannot be made.
        """
        self._state.prepare(self._now())

    def close(self) -> None:
        self._threads.close()

    async def load(self, account: str) -> Record | None:
        """The account's record, or None where it has none.

        Raises:
            StateDamaged, StateExposed: its file cannot be used; it is left as it is.
        """
        name = account.casefold()
        task = self._loads.get(name)
        if task is None:  # a thousand logins at once read a file once, and what it holds after they have asked
            task = self._loads[name] = asyncio.create_task(self._threads.run(lambda: self._load_for_all(name)))
            task.add_done_callback(lambda ended: self._ended(name, ended))
        return await asyncio.shield(task)

    def _load_for_all(self, name: str) -> Record | None:
        del self._loads[name]  # from here on, who asks anew must not get what is read now
        return self._load(name)

    def _ended(self, name: str, task: asyncio.Task[Record | None]) -> None:
        if self._loads.get(name) is task:  # it never began: the threads are closed
            del self._loads[name]
        if not task.cancelled():
            task.exception()  # all who asked may have left: that is no "exception was never retrieved"

    @asynccontextmanager
    async def locked(self, account: str) -> AsyncIterator[Record | None]:
        """Holds the account's lock, across tasks and processes, and reads its record anew."""
        async with self._locks.hold(names.stem_of(account)):
            yield await self.load(account)

    def is_current(self, record: Record) -> bool:
        """Whether the account's file is the one that this record was read from or saved to; True where the disk fails.

        One `lstat`, on the caller's thread: with the file's name it takes 8 µs, a turn in another thread 80.
        """
        try:
            return files.stamp(f"{self._accounts_in}{names.stem_of(record.account)}{SUFFIX}") == record.stamp
        except OSError:  # logins are served from memory then
            return True

    async def save(self, record: Record) -> Record:
        """Makes the record durable, whole or not at all; returns it with its new stamp. The caller holds the lock.

        Raises:
            StateDamaged, StateExposed: the file that is there cannot be used; it is left as it is.
            StateError: it cannot be written; the old one is unchanged.
        """
        return await self._threads.run(lambda: self._save(record))

    async def remove(self, account: str, *, only: Record | None = None) -> bool:
        """Forgets the account, damaged or not. Returns whether there was anything to forget.

        Takes the lock itself, so that no refresh under way brings the account back.

        Args:
            only: forget nothing where this record is not the present one any more.
        """
        async with self._locks.hold(names.stem_of(account)):
            if only is not None and not self.is_current(only):
                return False
            return await self._threads.run(lambda: files.remove(self._path(account)))

    async def survey(self, accounts: Sequence[str]) -> list[Seen]:
        """What there is of each of these accounts. One thread is busy with it, for half a millisecond an account: ask
        for some dozens at a time, so that logins do not wait for many."""
        return await self._threads.run(lambda: [self._seen(account) for account in accounts])

    async def accounts(self) -> list[str]:
        """The names of all accounts that have a file, sorted; of damaged ones, too, where the file's name tells."""
        return await self._threads.run(self._accounts)

    def _path(self, account: str) -> Path:
        return self._state.accounts / f"{names.stem_of(account)}{SUFFIX}"

    def _load(self, account: str) -> Record | None:
        return self._read(account) if self._state.has(self._state.accounts) else None

    def _read(self, account: str, known: object = None) -> Record | None:
        """The account's record; None where it has none, or where its file is still the one with the stamp `known`."""
        path = self._path(account)
        try:
            file = files.read(path)
            if file is None or file.stamp == known:
                return None
            record = codec.parse_record(file.data)
            if record.account != account.casefold():
                raise StateDamaged("it is another account's")
        except StateDamaged as error:
            raise StateDamaged(f"{path} is damaged ({error}); {again(account)}") from None
        return replace(record, stamp=file.stamp)

    def _seen(self, account: str) -> Seen:
        try:
            is_locked = self._locks.is_held(names.stem_of(account))  # first: who has let go since has saved it
            return Seen(is_locked, self._load(account.casefold()))
        except StateError as error:
            return Seen(False, None, error)

    def _save(self, record: Record) -> Record:
        data = codec.dump_record(record)
        self._state.make(self._state.accounts)
        self._read(record.account, record.stamp)  # what cannot be used is left as it is
        return replace(record, stamp=files.write(self._path(record.account), data))

    def _accounts(self) -> list[str]:
        if not self._state.has(self._state.accounts):
            return []
        found = [self._account_of(stem) for stem in files.stems(self._state.accounts, SUFFIX)]
        return sorted(account for account in found if account is not None)

    def _account_of(self, stem: str) -> str | None:
        account = names.account_of(stem)
        if account is not None:
            return account
        path = self._state.accounts / f"{stem}{SUFFIX}"
        try:
            file = files.read(path)
            if file is None:
                return None
            account = codec.parse_record(file.data).account
            if names.stem_of(account) != stem:
                raise StateDamaged("its name is not the account's")
            return account
        except StateError as error:
            log.warning("an account is left out, as its file %s cannot be used: %s", path, error)
            return None
