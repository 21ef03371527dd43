"""The proxy that PyPI publishes as `emailproxy`, in a virtual environment of its own, as a server."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator

from tests.bench.candidate import PYPI, Candidate
from tests.bench.candidates.leaving import left_out
from tests.bench.clients import Endpoint
from tests.bench.site import Bench, Servers
from tests.e2e.harness import otherproxy
from tests.e2e.harness.world import write_config


@contextlib.asynccontextmanager
async def pypi(bench: Bench, servers: Servers) -> AsyncIterator[Candidate | None]:
    if shutil.which(otherproxy.NAME) is None:
        left_out(PYPI, "it is not installed (scripts/bench does that)")
        yield None
        return
    world = bench.world_for("pypi", servers)
    sections = otherproxy.sections(world)
    del sections[f"SMTP-{world.local.smtp_starttls}"]
    config = write_config(world.folder / "emailproxy.config", sections)
    async with otherproxy.running(world, config) as program:
        imap, pop, smtp = (Endpoint(port) for port in (world.local.imap, world.local.pop, world.local.smtp))
        candidate = Candidate(PYPI, "Python", bench.with_password, imap, pop, smtp, program.pid, slow=True)
        await bench.sign_in(world, program, candidate)
        yield candidate
