"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.harness.clients import Clients
from tests.e2e.harness.world import PASSWORD, USER, World
from tests.e2e.harness.world import world as start_world

THREADS = 32


@pytest.fixture(autouse=True)
async def _room_for_clients() -> None:
    """Blocking clients run in the loop's default threads, of which a small machine has six; so do DNS look-ups."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with start_world(tmp_path) as started:
        yield started


@pytest.fixture
def clients() -> Iterator[Clients]:
    with tempfile.TemporaryDirectory(prefix="clients-") as home:
        yield Clients(Path(home), USER, PASSWORD)
