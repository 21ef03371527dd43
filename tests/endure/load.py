"""Logins at a steady rate, whatever becomes of them, and sessions that stand meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

from tests.e2e.harness.world import PASSWORD
from tests.endure.pulse import Beats
from tests.endure.talk import Step, Talk, connect, steps

A_SECOND = 20
"""Logins in all."""
PATIENCE_S = 60.0
SOURCES = tuple(f"127.0.4.{number}" for number in range(1, 9))
"""Those who wait for a provider come from several addresses: each may have so many connections only."""
OWN_SOURCE = "127.0.2.1"
NOOP = Step(b"n NOOP\r\n", re.compile(rb"n OK"), re.compile(rb"n "))


@dataclass(frozen=True)
class Told:
    """A refusal, and how long it took from the first SYN."""

    text: str
    took_ms: float


@dataclass
class Outcome:
    """Of some seconds: the logins with a token that works, and those without."""

    live: Beats = field(default_factory=Beats)
    refusals: list[Told] = field(default_factory=list)
    let_in: int = 0
    left: int = 0
    """Clients that still waited when our patience ended."""

    def refusal_ms(self, part: float) -> float:
        beats = Beats([told.took_ms for told in self.refusals])
        return beats.percentile(part) if self.refusals else 0.0


class Load:
    """All live logins so far are in `live`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sources = itertools.cycle(SOURCES)
        self.live = Beats()

    async def run(
        self, seconds: float, live: Sequence[str], ended: Sequence[str] = (), *, patience_s: float = PATIENCE_S
    ) -> Outcome:
        """So many seconds of logins: every other one of `ended`, where there are any.

        Args:
            patience_s: how long those that wait at the end are waited for.
        """
        outcome, tasks = Outcome(self.live), []
        turns = itertools.cycle((itertools.cycle(live), itertools.cycle(ended or live)))
        began_s = time.monotonic()
        for number in itertools.count():
            due_s = began_s + number / A_SECOND
            if due_s >= began_s + seconds:
                break
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            user = next(next(turns))
            tasks.append(asyncio.create_task(self._one(user, outcome, lives=user in live)))
        _, late = await asyncio.wait(tasks, timeout=patience_s)
        outcome.left = len(late)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return outcome

    async def _one(self, user: str, outcome: Outcome, *, lives: bool) -> None:
        began_s = time.perf_counter()
        refusal = await self.login(user, OWN_SOURCE if lives else next(self._sources))
        took_ms = (time.perf_counter() - began_s) * 1000
        if refusal is not None and lives:
            outcome.live.failures.append(f"{user}: {refusal}")
        elif refusal is not None:
            outcome.refusals.append(Told(refusal, took_ms))
        elif lives:
            outcome.live.took_ms.append(took_ms)
        else:
            outcome.let_in += 1

    async def login(self, user: str, source: str = OWN_SOURCE) -> str | None:
        """Logs in and out; what the client was told, where it was not let in."""
        dialogue = steps("IMAP", user, PASSWORD)
        try:
            async with asyncio.timeout(PATIENCE_S):
                talk = await connect(self._port, source=source)
                try:
                    for step in (*dialogue.login, dialogue.goodbye):
                        await talk.say(step)
                finally:
                    talk.close()
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            return f"{type(error).__name__}: {error}".rstrip()
        return None


@dataclass
class Standing:
    """A session that says NOOP every second."""

    talk: Talk
    answered: int = 0
    failures: list[str] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def at(cls, port: int, user: str) -> AsyncIterator[Self]:
        talk = await connect(port, source=OWN_SOURCE)
        for step in steps("IMAP", user, PASSWORD).login:
            await talk.say(step)
        session = cls(talk)
        task = asyncio.create_task(session._go_on())
        try:
            yield session
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            talk.close()

    async def _go_on(self) -> None:
        try:
            while True:
                async with asyncio.timeout(PATIENCE_S):
                    await self.talk.say(NOOP)
                self.answered += 1
                await asyncio.sleep(1)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
