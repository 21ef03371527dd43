"""A keyring of the `keyring` package that lies in a file, for a process that is told so by its environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import PasswordSetError

FILE = "TESTS_KEYRING_FILE"


class FileKeyring(KeyringBackend):
    """It can be read only."""

    priority = 1

    def get_password(self, service: str, username: str) -> str | None:
        entries: dict[str, dict[str, str]] = json.loads(Path(os.environ[FILE]).read_text())
        return entries.get(service, {}).get(username)

    def set_password(self, service: str, username: str, password: str) -> None:
        raise PasswordSetError("this keyring is read only")


def environment(file: Path, entries: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Writes the file; what makes a process use it."""
    file.touch(0o600)
    file.write_text(json.dumps(entries))
    return {"PYTHON_KEYRING_BACKEND": f"{__name__}.{FileKeyring.__name__}", FILE: str(file)}
