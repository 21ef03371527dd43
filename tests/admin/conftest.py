from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from emailproxy.oauth.broker import TokenBroker
from tests.oauth.world import CHEAP


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose sockets' paths are short enough, which others may enter."""
    with tempfile.TemporaryDirectory(prefix="emailproxy-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key derivations that cost next to nothing: those have tests of their own."""
    defaults = TokenBroker.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "cost", CHEAP)
