"""Logins over a line with a long round trip: how many of them each takes, TCP and TLS included."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tests.bench.candidate import PREWARMED, PYPI, Candidate
from tests.bench.candidates.emailproxy import LIMITS, PREWARM
from tests.bench.clients import Endpoint, Imap, Pop, Smtp
from tests.bench.delay import delayed
from tests.bench.effort import Effort
from tests.bench.logins import timed
from tests.bench.site import Bench, Servers
from tests.e2e.harness import otherproxy
from tests.e2e.harness.proxy import Program, serve
from tests.e2e.harness.world import USER, World, upstream, write_config

ROUND_TRIP_S = 0.1
LOGINS, SHORT_LOGINS = 3, 1  # after a first one: they hardly differ
REFILL_S, SHORT_REFILL_S = 2.0, 0.0  # longer than it takes to open a connection ahead, STARTTLS and all


Client = Imap | Pop | Smtp


@dataclass(frozen=True, slots=True)
class Trips:
    """A warm login's round trips, from the client's connection to the reply that it is in."""

    imap: float
    pop: float
    smtp: float


async def trips(bench: Bench, candidate: Candidate, effort: Effort) -> Trips:
    """This round's, in front of Dovecot: IMAP and POP3 over TLS, SMTP with STARTTLS. Made once."""
    return await bench.shared("distance", candidate, lambda: _trips(bench, candidate, effort))


async def _trips(bench: Bench, candidate: Candidate, effort: Effort) -> Trips:
    async with _far_away(bench, candidate) as far:
        ways: list[tuple[type[Client], Endpoint | None]] = [(Imap, far.imap), (Pop, far.pop), (Smtp, far.smtp)]
        return Trips(*[await _median(client, port, far, effort) for client, port in ways])


async def _median(client: type[Client], endpoint: Endpoint | None, candidate: Candidate, effort: Effort) -> float:
    assert endpoint is not None
    count, refill_s = (SHORT_LOGINS, SHORT_REFILL_S) if effort.short else (LOGINS, REFILL_S)
    took_s = []
    for _ in range(1 + count):
        if candidate.name == PREWARMED:
            await asyncio.sleep(refill_s)
        took_s.append(await asyncio.to_thread(timed, client, endpoint, candidate.account))
    return statistics.median(took_s[1:]) / ROUND_TRIP_S  # the first learns what the server can do


@contextlib.asynccontextmanager
async def _far_away(bench: Bench, candidate: Candidate) -> AsyncIterator[Candidate]:
    """One more of this candidate, signed in, with such a line between it and the mail server."""
    server = bench.world.server
    async with (
        delayed(server.imap.tls, ROUND_TRIP_S / 2) as imap,
        delayed(server.pop.tls, ROUND_TRIP_S / 2) as pop,
        delayed(server.smtp.starttls, ROUND_TRIP_S / 2) as smtp,
    ):
        world = bench.world_for("distance", Servers(imap, pop, smtp))
        async with _running(world, candidate) as program:
            local = world.local
            imap_port, pop_port, smtp_port = map(Endpoint, (local.imap, local.pop, local.smtp_starttls))
            far = Candidate(
                candidate.name, candidate.kind, bench.with_password, imap_port, pop_port, smtp_port, program.pid
            )
            await bench.sign_in(world, program, far)
            yield far


@contextlib.asynccontextmanager
async def _running(world: World, candidate: Candidate) -> AsyncIterator[Program]:
    local, server = world.local, world.server
    if candidate.name == PYPI:
        sections = otherproxy.sections(world)
        del sections[f"SMTP-{local.smtp}"]
        config = write_config(world.folder / "emailproxy.config", sections)
        async with otherproxy.running(world, config) as program:
            yield program
        return
    ahead: dict[str, object] = {"prewarm": PREWARM} if candidate.name == PREWARMED else {}
    sections = {
        "emailproxy": {**world.globals, **LIMITS, **ahead},
        f"IMAP-{local.imap}": upstream(server.imap.tls),
        f"POP-{local.pop}": upstream(server.pop.tls),
        f"SMTP-{local.smtp_starttls}": upstream(server.smtp.starttls, starttls=True),
        USER: world.account,
    }
    config = write_config(world.folder / "emailproxy.ini", sections)
    async with serve("--config", config, log_file=world.log_file, home=world.folder) as program:
        yield program
