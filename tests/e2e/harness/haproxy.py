"""Debian's HAProxy as the load balancer in front of the mail ports: it sends the PROXY protocol's header."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

START_S = 10.0


@contextlib.asynccontextmanager
async def haproxy(port: int, target: int, *, version: int) -> AsyncIterator[None]:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target`, as it comes; `version` is the header's, 1 or 2."""
    send = {1: "send-proxy", 2: "send-proxy-v2"}[version]
    with tempfile.TemporaryDirectory(prefix="haproxy-") as name:
        config = Path(name) / "haproxy.cfg"
        config.write_text(f"""
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen mail
  bind 127.0.0.1:{port}
  server proxy 127.0.0.1:{target} {send}
""")
        process = await asyncio.create_subprocess_exec(
            "haproxy", "-db", "-q", "-f", config, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(START_S):
                await _listening(port, process)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


async def _listening(port: int, process: asyncio.subprocess.Process) -> None:
    while True:
        if process.returncode is not None:
            assert process.stderr is not None
            raise AssertionError((await process.stderr.read()).decode(errors="replace"))
        with contextlib.suppress(ConnectionError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.02)
