"""This project: the real `emailproxy serve`, its account signed in."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.bench.candidate import EMAILPROXY, PREWARMED, Candidate
from tests.bench.clients import Endpoint
from tests.bench.site import Bench, Servers
from tests.e2e.harness.proxy import serve
from tests.e2e.harness.world import USER, World, upstream, write_config

LIMITS = {"max_connections": 20_000, "max_connections_per_address": 20_000, "max_unauthenticated": 20_000}
"""So that the bench's one address and one account may hold what a thousand people would."""
PREWARM = 8
"""As many as the clients that log in at once."""


@contextlib.asynccontextmanager
async def emailproxy(
    bench: Bench, servers: Servers, *, name: str = EMAILPROXY, **settings: object
) -> AsyncIterator[Candidate | None]:
    """With further keys of the `[emailproxy]` section."""
    world = bench.world_for("emailproxy", servers)
    config = configuration(world, **settings)
    async with serve("--config", config, log_file=world.log_file, home=world.folder) as program:
        imap, pop, smtp = (Endpoint(port) for port in (world.local.imap, world.local.pop, world.local.smtp))
        candidate = Candidate(name, "Python", bench.with_password, imap, pop, smtp, program.pid)
        await bench.sign_in(world, program, candidate)
        yield candidate


@contextlib.asynccontextmanager
async def prewarmed(bench: Bench, servers: Servers) -> AsyncIterator[Candidate | None]:
    """With upstream connections opened ahead."""
    async with emailproxy(bench, servers, name=PREWARMED, prewarm=PREWARM) as candidate:
        yield candidate


def configuration(world: World, **settings: object) -> Path:
    """The file for three listeners, each in front of one of the world's servers with implicit TLS."""
    ports = ((world.local.imap, "IMAP", world.server.imap), (world.local.pop, "POP", world.server.pop),
             (world.local.smtp, "SMTP", world.server.smtp))  # fmt: skip
    sections = {f"{kind}-{local}": upstream(server.tls) for local, kind, server in ports}
    globals_ = {"emailproxy": {**world.globals, **LIMITS, **settings}}
    return write_config(world.folder / "emailproxy.ini", {**globals_, **sections, USER: world.account})
