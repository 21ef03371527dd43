"""The process that forks workers: each gets its own answer, also after one who left, and one that hangs ends."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.cli.site import ended


async def test_answers_reach_whom_they_are_for_and_nothing_hangs_on(tmp_path: Path) -> None:
    alone = await ended(sys.executable, "-m", "tests.workers.alone", cwd=tmp_path)
    assert (alone.code, alone.out) == (0, ""), alone.err
    [told] = [line for line in alone.complaints if "does not answer, and is killed" in line]
    assert told.startswith("the process that starts workers (process ")
