"""A process at its limits: no file descriptors left, no memory left."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.harness.world import PASSWORD, USER
from tests.endure.crowd import addresses, answering, crowd, guests, reset
from tests.endure.frame import Stage, scenario
from tests.endure.pulse import Beats, Pulse
from tests.endure.site import Site, site
from tests.endure.talk import Talk, connect, steps
from tests.endure.watch import seconds_until

DESCRIPTORS = 300
INSIDE = 40
"""Sessions that stand before the trouble."""
CPU_PERCENT = 5.0
LINES_A_SECOND = 1.0
RECOVERY_S = 1.0
SPARE = 48 * 1024 * 1024
"""Octets of address space that the process may still take: less than Argon2id needs, and more than emailproxy keeps."""
COLD_LOGINS = 3
"""More of one address would be throttled, and need nothing."""


# ---- descriptors


@scenario(
    "descriptors", group="clients", what="Twice as many clients as there are file descriptors, then none left at all."
)
async def descriptors(stage: Stage) -> None:
    limit = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")
    async with site(stage, stub_octets=0, through=limit) as here, guests(here.local_stub, INSIDE) as inside:
        await _flooded(here)
        stage.figure("sessions that answer, of those before", await answering(inside), exactly=INSIDE)
        await _without_any(here)
        stage.figure("sessions that answer, of those before", await answering(inside), exactly=INSIDE)
        here.watch.judge_log(stage)


async def _flooded(here: Site) -> None:
    """The proxy knows how many it can serve; the others are told."""
    stage, lasting_s = here.stage, here.stage.effort(30.0, 3.0)
    async with crowd([here.port("IMAP")], addresses(20)) as people:
        await people.grow(2 * DESCRIPTORS)
        await seconds_until(lambda: all(member.heard or member.over for member in people.members), 10.0)
        stage.figure("clients, with a limit of 300 descriptors", 2 * DESCRIPTORS)
        stage.figure("let in", people.alive, at_least=1, at_most=DESCRIPTORS)
        stage.figure("descriptors in use", here.watch.descriptors, at_most=DESCRIPTORS)
        await _judge_calm(here, lasting_s)
    await _judge_recovery(here)


async def _without_any(here: Site) -> None:
    """Not even one to accept with: the limit falls below what is in use."""
    stage, lasting_s = here.stage, here.stage.effort(30.0, 3.0)
    with _limited(here.proxy.pid, resource.RLIMIT_NOFILE, here.watch.descriptors):
        async with crowd([here.port("IMAP")], addresses(20)) as people:
            await people.grow(50)
            stage.figure("clients, with no descriptor left", 50)
            await _judge_calm(here, lasting_s)
            stage.figure("descriptors in use", here.watch.descriptors, at_most=DESCRIPTORS)
    await _judge_recovery(here)


async def _judge_calm(here: Site, seconds: float) -> None:
    lines = here.proxy.log.count("\n")
    cpu = await here.watch.cpu_percent(seconds)
    lines = here.proxy.log.count("\n") - lines
    here.stage.figure("CPU while they wait", cpu, "% of a core", at_most=CPU_PERCENT, timing=True)
    here.stage.figure("lines in the log meanwhile", lines / seconds, "/s", at_most=LINES_A_SECOND)


async def _judge_recovery(here: Site) -> None:
    """Somebody from elsewhere logs in as soon as there is room."""
    pulse, began_s = Pulse(here.port("IMAP")), time.monotonic()
    beats = Beats()
    while not beats.took_ms and time.monotonic() - began_s < 20:
        await pulse.beat(beats)
    took_s = time.monotonic() - began_s if beats.took_ms else float("inf")
    here.stage.figure("the next login goes through, after", took_s, "s", at_most=here.stage.effort(RECOVERY_S, 20.0))


@contextmanager
def _limited(pid: int, what: int, soft: int) -> Iterator[None]:
    """A running process has this limit meanwhile. Only the soft one falls: a hard one could not be raised again."""
    old = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, old[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, old)


# ---- memory


@scenario("memory_limit", group="clients", what="The process may take no more memory while clients log in (RLIMIT_AS).")
async def memory_limit(stage: Stage) -> None:
    """A login that needs a key derived (64 MiB for Argon2id) cannot have it; warm ones and sessions go on."""
    limits = {"max_connections": 2000, "max_connections_per_address": 2000, "max_unauthenticated": 2000}
    async with site(stage, settings=limits, stub_octets=0) as here, guests(here.local_stub, INSIDE) as inside:
        pulse = Pulse(here.port("IMAP"))
        await pulse.before(5)
        with _limited(here.proxy.pid, resource.RLIMIT_AS, _address_space(here.proxy.pid) + SPARE):
            cold, warm = Beats(), Beats()
            for number in range(COLD_LOGINS):  # each with a password of its own: one that was wrong is remembered
                await Pulse(here.port("IMAP"), password=f"wrong {number}", source="127.0.2.2").beat(cold)
                await pulse.beat(warm)
            for failure in dict.fromkeys(cold.failures + warm.failures):
                stage.say(f"told: {failure.strip()}")
            told = sum("[UNAVAILABLE]" in failure for failure in cold.failures)
            stage.figure("logins that need 64 MiB, and are told to come back", told, exactly=COLD_LOGINS)
            stage.figure("logins that need none, and go through", len(warm.took_ms), exactly=COLD_LOGINS)
            await _crowded_out(here)
            await _judge_recovery(here)
        stage.figure("sessions that answer, of those before", await answering(inside), exactly=INSIDE)
        stage.figure("the process lives (1)", int(here.proxy.process.returncode is None), exactly=1)


async def _crowded_out(here: Site) -> None:
    """More clients than there is memory for: they are turned away, or fail one by one, and all of them are told."""
    stage, count = here.stage, 1200  # there is memory for 480 to 600 of them
    dialogue = steps("IMAP", USER, PASSWORD)

    async def come() -> Talk:
        talk = await connect(here.local_stub)
        for step in dialogue.login:
            await talk.say(step)
        return talk

    async with asyncio.timeout(60):
        outcomes = await asyncio.gather(*(come() for _ in range(count)), return_exceptions=True)
    inside = [one for one in outcomes if isinstance(one, Talk)]
    stage.figure("clients that come", count)
    stage.figure("clients that there was memory for", len(inside), at_least=1)
    refused = [str(one).strip() for one in outcomes if isinstance(one, BaseException)]
    for failure in dict.fromkeys(refused):
        stage.say(f"told: {failure}")
    told = sum("no memory" in failure for failure in refused)
    stage.figure("clients that were told that there is no memory", told, at_least=1)
    stage.figure("clients that were told nothing, or something else", len(refused) - told, exactly=0)
    for talk in inside:
        reset(talk)


def _address_space(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize()
