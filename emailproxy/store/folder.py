"""The state folder: what lies where, and its guard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emailproxy.store import files


@dataclass(frozen=True, slots=True)
class StateFolder:
    """``accounts/NAME.ini``, one lock per account under ``locks/``, consents under ``pending/``, and under ``waiting/``
    whose they are."""

    path: Path

    @property
    def accounts(self) -> Path:
        return self.path / "accounts"

    @property
    def locks(self) -> Path:
        return self.path / "locks"

    @property
    def pending(self) -> Path:
        return self.path / "pending"

    @property
    def waiting(self) -> Path:
        return self.path / "waiting"

    def prepare(self, now_s: float) -> None:
        """Makes what is missing, and clears up what killed processes left.

        Raises:
            StateExposed: a folder is open to other users.
        """
        for part in (self.accounts, self.locks, self.pending):
            self.make(part)
            files.sweep(part, now_s)
        if self.has(self.waiting):
            files.sweep(self.waiting, now_s)

    def make(self, part: Path) -> None:
        """Makes one of its folders, for a write."""
        files.make_folder(self.path)
        files.make_folder(part)

    def has(self, part: Path) -> bool:
        """Whether there is one of its folders, for a read."""
        return files.check_folder(self.path) and files.check_folder(part)
