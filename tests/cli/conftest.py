"""What the commands' tests share."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.cli.site import Site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site.at(tmp_path) as configured:
        yield configured


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that other users get to: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="emailproxy-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
