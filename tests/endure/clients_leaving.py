"""Clients that leave when nobody expects it: by RST at every step, or halfway, with their sending side shut."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.e2e.harness.world import PASSWORD, USER
from tests.endure.crowd import reset
from tests.endure.frame import Stage, scenario
from tests.endure.pulse import Pulse, judge
from tests.endure.site import ROOM_KIB, Site, site
from tests.endure.talk import PROTOCOLS, Talk, Unexpected, connect, steps
from tests.endure.watch import seconds_until

AT_ONCE = 2  # more would be a load, and what others notice is to be the resets
SOURCE = "127.0.3.1"
PATIENCE_S = 45.0
"""A session whose client has ended its stream and is owed nothing more ends after 30 s at the latest."""
GONE_S = 1.0
"""What is asked after a reset."""


# ---- resets


@dataclass(frozen=True)
class Leave:
    """Where a client leaves: after so many answers, the next step sent or not."""

    protocol: str
    answers: int
    sends_next: bool


def _leaves() -> list[Leave]:
    """Every step of every protocol's login, and of the first command after it."""
    return [
        Leave(protocol, answers, sends_next)
        for protocol in PROTOCOLS
        for answers in range(len(steps(protocol, USER, PASSWORD).login) + 1)
        for sends_next in (False, True)
    ]


@scenario("resets", group="clients", what="10,000 connections are reset, at every step of the login of each protocol.")
async def resets(stage: Stage) -> None:
    count, leaves = stage.effort(10_000, 300), _leaves()
    async with site(stage) as here:
        pulse = Pulse(here.port("IMAP"))
        before = await pulse.before(stage.effort(200, 30))
        await _reset_all(here, leaves * 5)  # what is done a first time
        await seconds_until(lambda: _sessionless(here), 10.0)
        rest = here.at_rest()
        async with pulse.beating() as during, here.watch.peak() as peak:
            failures = await _reset_all(here, [leaves[number % len(leaves)] for number in range(count)])
        gone_s = await seconds_until(lambda: here.watch.descriptors <= rest.descriptors, 20.0)
        stage.figure("connections reset", count)
        stage.figure("steps at which they were", len(leaves))
        for failure, often in failures.most_common(3):
            stage.say(f"{often} times: {failure}")
        stage.figure("connections that did not get as far as they should", failures.total(), exactly=0)
        stage.figure("all sessions gone after", gone_s, "s", at_most=GONE_S, timing=True)
        stage.figure("memory grown by, at the most", peak.kib - rest.rss_kib, "KiB", at_most=2 * ROOM_KIB)
        judge(stage, before, during)
        await here.judge_rest(rest)


def _sessionless(here: Site) -> bool:
    return here.sessions() == 0


async def _reset_all(here: Site, leaves: Sequence[Leave]) -> Counter[str]:
    """What went wrong, and how often."""
    failures: Counter[str] = Counter()
    turns = asyncio.Semaphore(AT_ONCE)

    async def leave(one: Leave) -> None:
        async with turns:
            try:
                await _reset_at(here.port(one.protocol), one)
            except (OSError, EOFError, Unexpected) as error:
                failures[f"{one}: {type(error).__name__} {error}"] += 1

    await asyncio.gather(*(leave(one) for one in leaves))
    return failures


async def _reset_at(port: int, leave: Leave) -> None:
    dialogue = steps(leave.protocol, USER, PASSWORD)
    path = (*dialogue.login, dialogue.after)
    talk = await connect(port, source=SOURCE)
    try:
        for step in path[: leave.answers]:
            await talk.say(step)
        if leave.sends_next:
            talk.writer.write(path[leave.answers].sends)
            await asyncio.sleep(0)  # out of this process, and to some extent into the proxy
    finally:
        reset(talk)


# ---- half-closed


@dataclass(frozen=True)
class Half:
    """What a client sends before it shuts its sending side, and what it is told at least once if it is to be told."""

    name: str
    protocol: str
    steps_before: int
    sends: bytes
    told: bytes


def _halves() -> list[Half]:
    words = {"IMAP": b"a LOGIN ann", "POP": b"USER an", "SMTP": b"AUTH PLA"}
    after = {"IMAP": b"y NOOP\r\nz LOGOUT\r\n", "POP": b"STAT\r\nQUIT\r\n", "SMTP": b"RSET\r\nQUIT\r\n"}
    told = {"IMAP": b"z OK", "POP": b"+OK Logging out", "SMTP": b"221 "}
    halves = []
    for protocol in PROTOCOLS:
        login = steps(protocol, USER, PASSWORD).login
        whole = login[-1].sends
        halves += [
            Half("before it says anything", protocol, 0, b"", b""),
            Half("within its login", protocol, len(login) - 1, words[protocol], b""),
            Half("behind its login", protocol, len(login) - 1, whole, b""),
            Half("behind its last command", protocol, len(login), after[protocol], told[protocol]),
        ]
    return halves


@scenario(
    "half_close", group="clients", what="Clients shut down their sending side before, during and after the login."
)
async def half_close(stage: Stage) -> None:
    rounds = stage.effort(50, 3)
    async with site(stage) as here:
        pulse = Pulse(here.port("IMAP"))
        before = await pulse.before(stage.effort(200, 30))
        await _all_halves(here)  # what is done a first time
        rest = here.at_rest()
        async with pulse.beating() as during:
            outcomes = [outcome for _ in range(rounds) for outcome in await _all_halves(here)]
            if not stage.short:  # 30 s
                stage.figure("a session left idle, and so left, after", await _idle_half(here), "s", at_most=PATIENCE_S)
        faults = Counter(outcome for outcome in outcomes if outcome)
        for fault, often in faults.items():
            stage.say(f"{often} times: {fault}")
        stage.figure("half-closed connections", len(outcomes))
        stage.figure("without their answer, or without an end", faults.total(), exactly=0)
        judge(stage, before, during)
        await here.judge_rest(rest, grown_kib=ROOM_KIB)


async def _all_halves(here: Site) -> list[str]:
    """One client of each kind, all at once."""
    return await asyncio.gather(*(_half(here, half) for half in _halves()))


async def _half(here: Site, half: Half) -> str:
    """What is wrong with the outcome; empty, if it is right."""
    talk = await connect(here.port(half.protocol), source=SOURCE)
    try:
        for step in steps(half.protocol, USER, PASSWORD).login[: half.steps_before]:
            await talk.say(step)
        talk.writer.write(half.sends)
        said = await _shut(talk)
    except TimeoutError:
        return f"{half.protocol}, {half.name}: it does not end"
    except (OSError, EOFError, Unexpected) as error:
        return f"{half.protocol}, {half.name}: {type(error).__name__} {error}"
    finally:
        talk.close()
    return "" if half.told in said else f"{half.protocol}, {half.name}: {said!r}"


async def _shut(talk: Talk) -> bytes:
    """All that comes after the end of the client's stream.

    Raises:
        TimeoutError: the proxy does not end its own.
    """
    talk.writer.write_eof()
    async with asyncio.timeout(PATIENCE_S):
        return await talk.reader.read()


async def _idle_half(here: Site) -> float:
    """Seconds until a logged-in session is ended whose client only listens on."""
    talk = await connect(here.port("IMAP"), source=SOURCE)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for step in steps("IMAP", USER, PASSWORD).login:
        await talk.say(step)
    with suppress(TimeoutError):
        await _shut(talk)
    talk.close()
    return loop.time() - began_s
