"""No proxy at all: clients that speak TLS and know the access token."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from tests.bench.candidate import DIRECT, Candidate
from tests.bench.clients import Endpoint
from tests.bench.site import Bench, Servers


@contextlib.asynccontextmanager
async def direct(bench: Bench, servers: Servers) -> AsyncIterator[Candidate | None]:
    tls = bench.tls()
    imap, pop, smtp = (Endpoint(port, tls) for port in (servers.imap, servers.pop, servers.smtp))
    yield Candidate(DIRECT, "none", bench.with_token, imap, pop, smtp)
