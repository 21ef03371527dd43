"""More connections than file descriptors: the rest is turned away, and who is in stays in."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from emailproxy.net.admission import COMPLAINT_S
from tests.bench.processes import Tree
from tests.e2e.harness.ports import free_ports

DESCRIPTORS = 200
FLOOD = 2 * DESCRIPTORS
CONFIG = """
[emailproxy]
state_dir = {folder}/state
log_file = {folder}/log
[IMAP-{port}]
server_address = localhost
server_port = {nobody}
[user@example.com]
token_url = https://localhost/token
oauth2_flow = client_credentials
oauth2_scope = mail
client_id = id
client_secret = secret
"""


async def test_twice_the_descriptors(tmp_path: Path) -> None:
    """No accept loop spins, the log stays short, sessions live on, and there is room again at once."""
    port, nobody = free_ports(2)
    config = tmp_path / "emailproxy.ini"
    config.write_text(CONFIG.format(folder=tmp_path, port=port, nobody=nobody))
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "bash",
        sys.executable, "-m", "emailproxy", "serve", "--config", str(config),
        stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        while b"ready" not in await process.stderr.readline():
            assert process.returncode is None
        tree, began_s = Tree(process.pid), time.monotonic()
        before_s = tree.cpu_s()
        first = await connect(port)
        assert (await first[0].readline()).startswith(b"* OK")
        rest = [await connect(port) for _ in range(FLOOD)]
        greetings = [await reader.readline() for reader, _ in rest]
        assert sum(greeting.startswith(b"* OK") for greeting in greetings) >= DESCRIPTORS // 4
        assert b"* BYE [LIMIT] too many connections; try again later\r\n" in greetings
        first[1].write(b"a NOOP\r\n")
        assert await first[0].readline() == b"a OK NOOP completed\r\n"
        for _, writer in rest:
            writer.transport.abort()
        greeting = b"* BYE"
        while not greeting.startswith(b"* OK"):
            reader, writer = await connect(port)
            greeting = await reader.readline()
            writer.transport.abort()
        assert tree.cpu_s() - before_s < 2
        first[1].close()
        took_s = time.monotonic() - began_s
    finally:
        process.terminate()
        _, errors = await process.communicate()
    assert process.returncode == 0
    assert errors.count(b"turned away") <= 2 + took_s / COMPLAINT_S
    assert b"Traceback" not in errors


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)
