"""Processes that are killed while they change an account's passwords: it is made or it is not, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections import defaultdict
from pathlib import Path

import pytest

ROUNDS = 40
"""Of kills at random moments, for each kind of change; besides, each is killed at each of its system calls."""
BEFORE = ("first", "extra")
AFTER = {"add": ("first", "extra", "new"), "change": ("extra", "new"), "remove": ("first",)}
"""The passwords that open the account."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


async def test_each_password_works_or_does_not_and_the_tokens_stay(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.oauth.changing", str(tmp_path / "state"), str(ROUNDS)),
        cwd=Path(__file__).parents[2],
        stdout=PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    seen: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for line in out.decode().splitlines():
        change, *opening = line.split()
        seen[change].append(tuple(opening))
    assert seen.keys() == AFTER.keys()
    for change, found in seen.items():
        assert set(found) == {BEFORE, AFTER[change]}, change
        assert len(found) >= ROUNDS + 6  # the record, its lock, the temporary, the rename and the folder at the least
