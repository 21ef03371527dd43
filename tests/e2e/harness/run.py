"""Runs a program to its end, its output in a file: a daemon that keeps a pipe open would hold us for ever."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Outcome(NamedTuple):
    code: int
    output: str
    """Standard output and standard error, as they came."""


async def run(
    *command: str | Path,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60.0,
) -> Outcome:
    """The program's exit code and output. A program that overstays `timeout` seconds is killed: TimeoutError."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output:
        given.write(stdin)
        given.seek(0)
        process = await asyncio.create_subprocess_exec(
            *command, stdin=given, stdout=output, stderr=output, env=env, cwd=cwd
        )
        try:
            code = await asyncio.wait_for(process.wait(), timeout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        output.seek(0)
        return Outcome(code, output.read().decode(errors="replace"))
