from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.oauth.certificates import Pair, made
from tests.oauth.world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World.at(tmp_path / "state") as world:
        yield world


@pytest.fixture(scope="session")
def pair() -> Pair:
    """A client's certificate and key."""
    return made()
