"""State folders that children, also of other users, can reach."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from emailproxy.store.ini import IniStore


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user may pass through; pytest's own let nobody else in."""
    folder = Path(tempfile.mkdtemp(prefix="emailproxy-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "var" / "state"


@pytest.fixture
def store(state: Path) -> Iterator[IniStore]:
    store = IniStore(state)
    yield store
    store.close()
