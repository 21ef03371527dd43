"""Debian's HTTP and SOCKS proxies, as the only way out of a network: they count what they let through."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness.ports import free_ports

START_S = 10.0
USER, PASSWORD = "proxyuser", "proxy-password-canary"


@dataclass(frozen=True)
class WayOut:
    """A proxy that runs; `url` is what `upstream_proxy` takes."""

    url: str
    log: Path

    def met(self, host: str, port: int) -> bool:
        """Whether it was asked for this host and port."""
        said = self.log.read_text(errors="replace")
        return f"{host}:{port}" in said


@contextlib.asynccontextmanager
async def tinyproxy() -> AsyncIterator[WayOut]:
    """An HTTP proxy that takes CONNECT, for those who know its password."""
    [port] = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="tinyproxy-") as name:
        folder = Path(name)
        config, log = folder / "tinyproxy.conf", folder / "log"
        config.write_text(
            f'Port {port}\nListen 127.0.0.1\nTimeout 60\nLogFile "{log}"\nLogLevel Connect\nAllow 127.0.0.1\n'
            f"BasicAuth {USER} {PASSWORD}\n"
        )
        async with _running(port, "tinyproxy", "-d", "-c", config):
            yield WayOut(f"http://{USER}:{PASSWORD}@127.0.0.1:{port}", log)


@contextlib.asynccontextmanager
async def microsocks() -> AsyncIterator[WayOut]:
    """A SOCKS5 proxy, likewise; it looks names up itself."""
    [port] = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="microsocks-") as name:
        log = Path(name) / "log"
        command = ("microsocks", "-i", "127.0.0.1", "-p", str(port), "-u", USER, "-P", PASSWORD)
        async with _running(port, *command, log=log):
            yield WayOut(f"socks5h://{USER}:{PASSWORD}@127.0.0.1:{port}", log)


@contextlib.asynccontextmanager
async def _running(port: int, *command: str | Path, log: Path | None = None) -> AsyncIterator[None]:
    with contextlib.ExitStack() as stack:
        output = asyncio.subprocess.DEVNULL if log is None else stack.enter_context(log.open("wb"))
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
        try:
            async with asyncio.timeout(START_S):
                while not await _listens(port):
                    assert process.returncode is None, f"{command[0]} ended with {process.returncode}"
                    await asyncio.sleep(0.02)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True
