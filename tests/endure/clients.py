"""Clients that take a place and give nothing for it: silent ones, slow ones, endless lines, idle ones."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from emailproxy.net import trimming
from tests.bench.processes import affordable
from tests.endure.crowd import Crowd, addresses, answering, crowd, guests
from tests.endure.frame import Stage, scenario
from tests.endure.pulse import Pulse, judge
from tests.endure.site import ROOM_KIB, Rest, Site, site
from tests.endure.talk import PROTOCOLS, connect
from tests.endure.watch import seconds_until

SOURCES = 20
"""Addresses that a crowd comes from."""
LEAVING_S = 8.0
"""After the deadline: who says nothing and does not leave is given 5 s to take the words in."""
PER_SILENT_KIB = 16
"""What a connection that has not logged in may cost: its session, its transport, its dialogue."""
KEPT = 0.4
"""What may stay of the memory of a crowd that has left, in parts: it is 0.16 of 9,000, and 0.27 of 2,000."""
SLACK_S = 10.0
MIB = 1024 * 1024
PIECE = 64 * 1024
SLOW = {"IMAP": b"a LOGIN ", "POP": b"USER ", "SMTP": b"EHLO "}
"""How a slow client's line begins. It has no end in time."""


@scenario("silent", group="clients", what="2,000 clients connect from many addresses, and say nothing.")
async def silent(stage: Stage) -> None:
    """With the limits that everybody has: 500 whose login is not decided, 200 of one address."""
    alone, elsewhere, timeout_s = stage.effort((400, 1600, 60), (250, 450, 6))
    one, *others = addresses(SOURCES)
    async with site(stage, settings={"login_timeout": timeout_s}) as here:
        pulse = Pulse(here.port("IMAP"))
        before, rest = await pulse.before(stage.effort(200, 30)), here.at_rest()
        ports = [here.port(protocol) for protocol in PROTOCOLS]
        async with (
            crowd(ports, [one]) as first,
            crowd(ports, others) as second,
            pulse.beating() as during,
            here.watch.peak() as peak,
        ):
            await first.grow(alone)
            await _answered(first)
            stage.figure("let in from one address", _inside(first), at_most=200)
            await second.grow(elsewhere)
            await _answered(second)
            inside = _inside(first) + _inside(second)
            stage.figure("let in from all", inside, at_least=400, at_most=500)
            stage.figure("refused without a word", first.refused + second.refused, exactly=0)
            in_time_s = timeout_s + LEAVING_S
            gone_s = max([await people.emptied(in_time_s) for people in (first, second)])
            stage.figure("all gone within the deadline and 8 s, after", gone_s, "s", at_most=in_time_s)
        allowed_kib = ROOM_KIB + inside * PER_SILENT_KIB
        stage.figure("memory grown by, at the most", peak.kib - rest.rss_kib, "KiB", at_most=allowed_kib)
        judge(stage, before, during)
        await here.judge_rest(rest, grown_kib=allowed_kib)


def _inside(people: Crowd) -> int:
    turned_away = (b"* BYE", b"-ERR", b"421")
    return sum(not member.over and not member.heard.startswith(turned_away) for member in people.members)


async def _answered(people: Crowd) -> None:
    """All who connected have heard something, or are gone."""
    await seconds_until(lambda: all(member.heard or member.over for member in people.members), 10.0)


@scenario("slow", group="clients", what="Twice: clients of all protocols send one octet of their login a second.")
async def slow(stage: Stage) -> None:
    timeout_s, every_s = stage.effort((60, 1.0), (5, 0.1))
    each = stage.effort(50, 10)
    async with site(stage, settings={"login_timeout": timeout_s}) as here:

        async def wave() -> list[float]:
            tasks = [_drip(here.port(protocol), SLOW[protocol], every_s) for protocol in PROTOCOLS * each]
            return await asyncio.gather(*tasks)

        pulse = Pulse(here.port("IMAP"))
        await wave()  # the allocator keeps what so many had for those that come next: these must need no more
        before, rest = await pulse.before(stage.effort(200, 30)), here.at_rest()
        async with pulse.beating() as during:
            lasted_s = await wave()
        stage.figure("slow logins", len(lasted_s))
        stage.figure("ended before the deadline", sum(one < timeout_s - 0.5 for one in lasted_s), exactly=0)
        stage.figure("the last one ended after", max(lasted_s), "s", at_most=timeout_s + LEAVING_S)
        judge(stage, before, during)
        await here.judge_rest(rest)


async def _drip(port: int, start: bytes, every_s: float) -> float:
    """Seconds until the proxy ends it, whatever it says before."""
    talk = await connect(port, source="127.0.3.1")
    began_s = time.monotonic()
    ended = asyncio.create_task(talk.reader.read())
    octets = start + b"x" * 10_000
    with suppress(OSError):
        for octet in octets:
            talk.writer.write(bytes([octet]))
            await asyncio.wait({ended}, timeout=every_s)
            if ended.done():
                break
    talk.close()
    with suppress(OSError):
        await ended
    return time.monotonic() - began_s


@scenario("endless_line", group="clients", what="64 MB without an end of line, before the login, to each protocol.")
async def endless_line(stage: Stage) -> None:
    octets = stage.effort(64, 16) * MIB
    async with site(stage) as here:
        pulse = Pulse(here.port("IMAP"))
        before = await pulse.before(stage.effort(200, 30))
        for protocol in PROTOCOLS:
            await _pour(here.port(protocol), MIB)
        rest = here.at_rest()
        async with pulse.beating() as during, here.watch.peak() as peak:
            for protocol in PROTOCOLS:
                taken, said, took_s = await _pour(here.port(protocol), octets)
                stage.figure(f"{protocol}: sent, of {octets // MIB} MiB", taken / MIB, "MiB")
                stage.figure(f"{protocol}: octets of the answer", len(said), at_least=1, at_most=1024)
                stage.figure(f"{protocol}: closed after", took_s, "s", at_most=LEAVING_S)
            await asyncio.sleep(stage.effort(5.0, 0.5))
        stage.figure("memory grown by, at the most", peak.kib - rest.rss_kib, "KiB", at_most=ROOM_KIB)
        judge(stage, before, during)
        await here.judge_rest(rest)


async def _pour(port: int, octets: int) -> tuple[int, bytes, float]:
    """How much was taken before the end, what was said besides the greeting, and how long it took."""
    talk = await connect(port, source="127.0.3.1")
    await talk.reader.readline()
    began_s = time.monotonic()
    listening = asyncio.create_task(talk.reader.read())
    taken = 0
    with suppress(OSError):
        for _ in range(octets // PIECE):
            talk.writer.write(b"x" * PIECE)
            await talk.writer.drain()
            taken += PIECE
        talk.writer.write_eof()
    said = b""
    with suppress(OSError):
        said = await listening
    talk.close()
    return taken, said, time.monotonic() - began_s


@scenario("idle", group="clients", what="10,000 logged-in connections stand idle in one process.")
async def idle(stage: Stage) -> None:
    count, rest_s = stage.effort((10_000, 30.0), (200, 3.0))
    count = affordable(count)
    limits = {"max_connections": count + 100, "max_connections_per_address": count + 100}
    async with site(stage, settings=limits, stub_octets=0) as here:
        pulse = Pulse(here.port("IMAP"))
        before, rest = await pulse.before(stage.effort(200, 30)), here.at_rest()
        began_s = time.monotonic()
        async with guests(here.local_stub, count) as inside:
            stage.figure("logins a second", count / (time.monotonic() - began_s), "/s")
            grown_kib = here.watch.rss_kib - rest.rss_kib
            stage.figure("memory for each of them", grown_kib / count, "KiB", at_most=stage.effort(42, 80))
            stage.figure("CPU", await here.watch.cpu_percent(rest_s), "% of a core", at_most=2, timing=True)
            async with pulse.beating() as during:
                await asyncio.sleep(rest_s)
            stage.figure("alive", await answering(inside), exactly=count)
        judge(stage, before, during)
        # The allocator may keep what they had for those that come next; to leave takes a little more.
        await here.judge_rest(rest, grown_kib=int(grown_kib * 1.1) + ROOM_KIB)
        if count >= trimming.CROWD:
            await _judge_given_back(here, rest, grown_kib)


async def _judge_given_back(here: Site, rest: Rest, grown_kib: int) -> None:
    """A while after, it does not ask for what nobody needs; Python's own allocator gives little back."""
    within_s, most_kib = trimming.AFTER_S + SLACK_S, grown_kib * KEPT
    took_s = await seconds_until(lambda: here.watch.rss_kib - rest.rss_kib <= most_kib, within_s)
    kept = (here.watch.rss_kib - rest.rss_kib) / grown_kib
    here.stage.figure("of their memory is kept", kept * 100, "%", at_most=KEPT * 100)
    here.stage.figure("the rest was given back after", took_s, "s", at_most=within_s)
