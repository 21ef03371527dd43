"""An ordinary client beside the trouble: it logs in again and again, and must not notice."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.e2e.harness.proxy import CHECKOUT
from tests.e2e.harness.world import PASSWORD, USER
from tests.endure.frame import Stage
from tests.endure.talk import connect, steps

EVERY_S = 0.1
PATIENCE_S = 20.0
"""A login that takes longer has failed."""
SLOWER = 2.0
"""How much slower than before the slowest of a hundred logins may be."""
NO_MATTER_MS = 50.0
"""A login that is faster than this is never called slow: nobody notices it, and a machine of two cores, which runs the
trouble, the mail server and the proxy at once, has hiccups of this length without any of them at fault."""
SAMPLES = 100
"""Logins before the trouble, to compare with: so many that the slowest of a hundred is known."""
SPACED_S = 0.03
"""Between two of them: at their leisure, as those later."""


@dataclass
class Beats:
    """Some logins: how long each took, and what those that failed were told."""

    took_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def percentile(self, part: float) -> float:
        """By nearest rank: of fewer than a hundred the 99th percentile is the slowest."""
        ordered = sorted(self.took_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part / 100))] if ordered else float("inf")


class Pulse:
    """Comes from an address of its own, so that no limit by address that others exhaust is met."""

    def __init__(
        self,
        port: int,
        user: str = USER,
        password: str = PASSWORD,
        *,
        protocol: str = "IMAP",
        source: str = "127.0.2.1",
    ) -> None:
        self._port, self._source, self._protocol = port, source, protocol
        self._user, self._password = user, password
        self._steps = steps(protocol, user, password)

    async def login_ms(self) -> float:
        """From the first SYN to the answer to the login.

        Raises:
            OSError, EOFError, TimeoutError, Unexpected: it failed.
        """
        began_s = time.perf_counter()
        async with asyncio.timeout(PATIENCE_S):
            talk = await connect(self._port, source=self._source)
            try:
                for step in self._steps.login:
                    await talk.say(step)
                took_s = time.perf_counter() - began_s
                await talk.say(self._steps.goodbye)
                return took_s * 1000
            finally:
                talk.close()

    async def beat(self, beats: Beats) -> None:
        try:
            beats.took_ms.append(await self.login_ms())
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            beats.failures.append(f"{type(error).__name__}: {error}")

    async def before(self, count: int = SAMPLES) -> Beats:
        """So many logins, one after another."""
        beats = Beats()
        async with self._process(SPACED_S, count, beats) as listening:
            await listening
        return beats

    @asynccontextmanager
    async def beating(self, every_s: float = EVERY_S) -> AsyncIterator[Beats]:
        """Logins while the body runs: the next one begins so long after the last one ended."""
        beats = Beats()
        async with self._process(every_s, None, beats):
            yield beats

    @asynccontextmanager
    async def _process(self, every_s: float, count: int | None, beats: Beats) -> AsyncIterator[asyncio.Task[None]]:
        """A client in a process of its own: what it measures is the proxy, not a busy scenario. Yields what ends with
        its last login."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.endure.heart",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=CHECKOUT,
            start_new_session=True,  # a Ctrl-C is for us: it ends with its standard input
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        orders = (
            self._port, self._source, self._protocol, self._user, self._password, every_s, count, PATIENCE_S,
        )  # fmt: skip
        process.stdin.write(json.dumps(orders).encode() + b"\n")
        listening = asyncio.create_task(self._listen(process.stdout, beats))
        try:
            yield listening
        finally:
            process.stdin.close()
            try:
                await asyncio.wait_for(listening, PATIENCE_S)
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _listen(self, said: asyncio.StreamReader, beats: Beats) -> None:
        async for line in said:
            outcome = json.loads(line)
            if "ms" in outcome:
                beats.took_ms.append(outcome["ms"])
            else:
                beats.failures.append(outcome["failed"])


def judge(stage: Stage, before: Beats, during: Beats, *, slower: float = SLOWER) -> None:
    """Others are served: no login fails, and the slowest of a hundred takes at most twice as long as before."""
    for failure in (before.failures + during.failures)[:3]:
        stage.say(f"a login failed: {failure}")
    stage.figure("others' logins", len(during.took_ms), at_least=1)
    stage.figure("others' logins that failed", len(before.failures) + len(during.failures), exactly=0)
    allowed_ms = round(max(slower * before.percentile(99), NO_MATTER_MS), 1)
    stage.figure("others' logins, median (before)", before.percentile(50), "ms")
    stage.figure("others' logins, median (meanwhile)", during.percentile(50), "ms")
    stage.figure("others' logins, p99 (before)", before.percentile(99), "ms")
    stage.figure("others' logins, p99 (meanwhile)", during.percentile(99), "ms", at_most=allowed_ms, timing=True)
