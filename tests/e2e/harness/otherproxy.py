"""The proxy that PyPI publishes under our name: it writes the files that its users bring, and ours is to read them.

scripts/test installs it in a virtual environment of its own, as its users have it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from tests.e2e.harness.proxy import Program
from tests.e2e.harness.world import PASSWORD, USER, World, imap_login, write_config

NAME = "other-proxy"
"""The program, as the tests' `system` marker has it."""


def sections(world: World, **settings: str) -> dict[str, dict[str, object]]:
    """A configuration that both understand, as its owner would have written it."""
    local, server = world.local, world.server
    here = {"server_address": "localhost", "local_address": "127.0.0.1"}
    return {
        "emailproxy": {"delete_account_token_on_password_error": "False", **settings},
        f"IMAP-{local.imap}": {**here, "server_port": server.imap.tls},
        f"POP-{local.pop}": {**here, "server_port": server.pop.tls},
        f"SMTP-{local.smtp}": {**here, "server_port": server.smtp.tls},
        f"SMTP-{local.smtp_starttls}": {**here, "server_port": server.smtp.starttls, "server_starttls": "True"},
        USER: {**world.account, "use_pkce": "True"},
    }


def command(config: Path, *arguments: str | Path) -> tuple[str | Path, ...]:
    """Serves, with no window."""
    return (NAME, "--no-gui", "--local-server-auth", "--config-file", config, *arguments)


def environment(world: World) -> dict[str, str]:
    """A user's, who trusts the world's authority."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(world.folder),
        "SSL_CERT_FILE": str(world.authority.certificate_file),
        "PYTHONUNBUFFERED": "1",
    }


@contextlib.asynccontextmanager
async def running(world: World, config: Path, *arguments: str | Path) -> AsyncIterator[Program]:
    """Runs it until the caller is done; then it has written what it keeps."""
    process = await asyncio.create_subprocess_exec(
        *command(config, *arguments),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment(world), cwd=world.folder,
    )  # fmt: skip
    program = Program(process)
    listening = program.begin_to_listen()
    try:
        await program.printed("listening for authentication requests", timeout=30)
        yield program
    finally:
        await program.close()
        await listening


async def signed_in(
    world: World, *arguments: str | Path, user: str = USER, password: str = PASSWORD, **settings: str
) -> Path:
    """A configuration file of a user who has signed in with it, its cached values included."""
    config = write_config(world.folder / "emailproxy.config", sections(world, **settings))
    world.provider.account = user
    async with running(world, config, *arguments) as program:
        login = asyncio.create_task(asyncio.to_thread(imap_login, world.local.imap, user, password))
        found = await program.printed(r"Please visit the following URL to authenticate account \S+: (\S+)\r?\n")
        page = await world.visit(found[1])
        assert page.status == 200, page
        await login
    return config
