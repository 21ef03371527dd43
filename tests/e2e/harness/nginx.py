"""Debian's nginx as the reverse proxy in front of the redirect listener."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from tests.e2e.harness.run import run


@contextlib.asynccontextmanager
async def nginx(port: int, location: str) -> AsyncIterator[None]:
    """Runs nginx on 127.0.0.1 with this one `location` block."""
    with tempfile.TemporaryDirectory(prefix="nginx-") as name:
        folder = Path(name)
        config = folder / "nginx.conf"
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
        config.write_text(f"""
pid {folder}/pid;
error_log {folder}/error.log;
worker_processes 1;
events {{}}
http {{
access_log off;
{temporary}
server {{
listen 127.0.0.1:{port};
{location}
}}
}}
""")
        # It returns once it listens, and leaves a daemon.
        started = await run("nginx", "-e", folder / "error.log", "-c", config)
        assert started.code == 0, started.output
        master = int((folder / "pid").read_text())
        try:
            yield
        finally:
            os.killpg(master, signal.SIGKILL)
