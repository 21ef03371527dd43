from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.check.site import Site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site.at(tmp_path) as site:
        yield site
