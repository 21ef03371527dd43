"""How a candidate is left out, and how one is waited for."""

from __future__ import annotations

import asyncio
import sys

START_S = 20.0
PAUSE_S = 0.02


def left_out(name: str, reason: str) -> None:
    print(f"{name} is left out: {reason}", file=sys.stderr, flush=True)


async def listening(port: int, process: asyncio.subprocess.Process) -> None:
    """Waits until the process takes connections.

    Raises:
        RuntimeError: it ended.
        TimeoutError: it does not take any.
    """
    async with asyncio.timeout(START_S):
        while process.returncode is None:
            try:
                _reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(PAUSE_S)
            else:
                writer.close()
                return
    raise RuntimeError(f"the process ended with {process.returncode}")
