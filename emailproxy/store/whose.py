"""Whose consent waits: a file an account, which names the consent's.

What a file here names may be gone: used, expired, or displaced by newer ones. A consent that no file here names is
nobody's; its `state` finds it all the same.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from emailproxy.store import files
from emailproxy.store.folder import StateFolder
from emailproxy.store.names import stem_of

SUFFIX = ".txt"
UNFINISHED = ".waiting.tmp"
CONSENT = re.compile(rb"[0-9a-f]{64}\n\Z")


class Whose:
    """Blocks: for threads. What changes anything is called under the consents' lock."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state

    def is_known(self) -> bool:
        """Whether this says everything: folders of earlier versions lack it."""
        return self._state.has(self._state.waiting)

    def start(self, consents: Mapping[str, str]) -> None:
        """Makes it, as a whole or not at all, of the consents that there are by account."""
        unfinished = self._state.path / UNFINISHED
        shutil.rmtree(unfinished, ignore_errors=True)  # a killed process's
        self._state.make(unfinished)
        for account, consent in consents.items():
            _write(unfinished, account, consent)
        try:
            unfinished.rename(self._state.waiting)
        except OSError as error:
            files.failed("make the folder", self._state.waiting, error)

    def of(self, account: str) -> str | None:
        """What the account's consent is called, if one waits or has waited.

        Raises:
            StateExposed: others may read the file, or write it.
        """
        file = files.read(_path(self._state.waiting, account))
        return file.data[:-1].decode() if file is not None and CONSENT.match(file.data) else None

    def put(self, account: str, consent: str) -> None:
        """Names the account's consent, in place of any other."""
        _write(self._state.waiting, account, consent)

    def forget(self, account: str, consent: str) -> None:
        """Removes the account's file, where it names this consent."""
        if self.of(account) == consent:
            files.remove(_path(self._state.waiting, account))

    def tidy(self, exists: Callable[[str], bool], *, at_most: int) -> None:
        """Where there are more files than that, removes those whose consent is gone."""
        stems = files.stems(self._state.waiting, SUFFIX)
        if len(stems) <= at_most:
            return
        for stem in stems:
            path = self._state.waiting / f"{stem}{SUFFIX}"
            file = files.read(path)
            if file is not None and not (CONSENT.match(file.data) and exists(file.data[:-1].decode())):
                files.remove(path)


def _path(folder: Path, account: str) -> Path:
    return folder / f"{stem_of(account)}{SUFFIX}"


def _write(folder: Path, account: str, consent: str) -> None:
    files.write(_path(folder, account), f"{consent}\n".encode())
