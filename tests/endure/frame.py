"""What all scenarios share: how one is named, what it is given, and how its figures are judged.

A scenario is a coroutine function in a module of this package::

    @scenario("silent", group="clients", what="2,000 clients connect and say nothing.")
    async def silent(stage: Stage) -> None:
        count = stage.effort(2000, 200)
        ...
        stage.figure("memory grown by", grown_kib, "KiB", at_most=1024)

It brings the parts it needs (`tests.endure.site` starts the usual ones), ends them, and leaves its files in
`stage.folder`, which is its own. A figure out of its bounds, an exception, or an overstayed time limit is a failure;
the scenarios after it run all the same.
"""

from __future__ import annotations

import asyncio
import faulthandler
import importlib
import os
import pkgutil
import shutil
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import tests.endure
from emailproxy.service import new_event_loop

LIMIT_S = 900.0
SHORT_LIMIT_S = 90.0
"""What a scenario may take unless it says otherwise: this is to end what hangs, not to measure."""
CLEANING_S = 30.0
"""After its limit a scenario ends its processes; what is still there then cannot be cancelled."""

Body = Callable[["Stage"], Awaitable[None]]


class LeftOut(Exception):
    """The scenario cannot run here; the text says why."""


@dataclass(frozen=True)
class Figure:
    """One thing measured, and what it may be."""

    text: str
    value: float
    unit: str
    bound: str
    """In words; empty where the figure is only told."""
    holds: bool

    def __str__(self) -> str:
        line = f"  {self.text}: {self._number(self.value)} {self.unit}".rstrip()
        if not self.bound:
            return line
        return f"{line}  ({self.bound})  {'ok' if self.holds else 'FELL SHORT'}"

    @staticmethod
    def _number(value: float) -> str:
        return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:,.3g}"


@dataclass
class Stage:
    """What one scenario is given, and what it says."""

    folder: Path
    """Fresh, open to the mail server's user too; gone afterwards."""
    short: bool
    minutes: float
    """For scenarios that go on for as long as they are told to."""
    tell: Callable[[str], None] = print
    figures: list[Figure] = field(default_factory=list)

    def effort(self, full: Any, short: Any) -> Any:
        """How much of something: the first, or with ``--short`` the second."""
        return short if self.short else full

    def figure(
        self,
        text: str,
        value: float,
        unit: str = "",
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        exactly: float | None = None,
        timing: bool = False,
    ) -> bool:
        """Says what was measured, and whether that is within the bounds; without bounds it always is.

        A `timing` is of a time, a speed or of CPU: with ``--short`` it is told and not judged, for such runs share
        their machine with others.
        """
        words, holds = [], True
        for word, bound, held in (
            ("at least", at_least, at_least is None or value >= at_least),
            ("at most", at_most, at_most is None or value <= at_most),
            ("exactly", exactly, exactly is None or value == exactly),
        ):
            if bound is not None:
                words.append(f"{word} {bound:,}")
                holds = holds and held
        if timing and self.short:
            words, holds = [*words, "not judged here"] if words else [], True
        self.figures.append(Figure(text, value, unit, ", ".join(words), holds))
        self.tell(str(self.figures[-1]))
        return holds

    def say(self, text: str) -> None:
        """A line for who looks on."""
        self.tell(f"  {text}")

    def cannot(self, reason: str) -> NoReturn:
        """This machine lacks something: the scenario is left out, which is no failure, and listed."""
        raise LeftOut(reason)


@dataclass(frozen=True)
class Scenario:
    name: str
    group: str
    what: str
    """One sentence: what is done to the proxy."""
    run: Body
    limit_s: float
    short_limit_s: float
    """With `--minutes`, these come on top of the minutes."""
    lasting: bool
    """It takes `stage.minutes`."""

    def allowed_s(self, stage: Stage) -> float:
        limit_s = self.short_limit_s if stage.short else self.limit_s
        return limit_s + (stage.minutes * 60 if self.lasting else 0)


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str,
    *,
    group: str,
    what: str,
    limit_s: float = LIMIT_S,
    short_limit_s: float = SHORT_LIMIT_S,
    lasting: bool = False,
) -> Callable[[Body], Body]:
    """Makes a coroutine function a scenario."""

    def register(body: Body) -> Body:
        assert name not in SCENARIOS, f"two scenarios are named {name}"
        SCENARIOS[name] = Scenario(name, group, what, body, limit_s, short_limit_s, lasting)
        return body

    return register


def load() -> Sequence[Scenario]:
    """All scenarios of this package, by group."""
    for module in pkgutil.iter_modules(tests.endure.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{tests.endure.__name__}.{module.name}")
    return sorted(SCENARIOS.values(), key=lambda one: (one.lasting, one.group))


@dataclass(frozen=True)
class Result:
    """What became of a scenario."""

    scenario: Scenario
    seconds: float
    figures: Sequence[Figure]
    problem: str = ""
    left_out: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem and all(figure.holds for figure in self.figures)

    def facts(self) -> dict[str, object]:
        """For JSON."""
        return {
            "name": self.scenario.name,
            "group": self.scenario.group,
            "what": self.scenario.what,
            "seconds": round(self.seconds, 1),
            "ok": self.ok,
            "problem": self.problem,
            "left_out": self.left_out,
            "figures": [vars(figure) for figure in self.figures],
        }


def perform(chosen: Scenario, *, short: bool, minutes: float, tell: Callable[[str], None]) -> Result:
    """Runs one, on an event loop of its own."""
    began_s = time.monotonic()
    problem = left_out = ""
    with _folder() as folder:
        stage = Stage(folder, short, minutes, tell)
        try:
            allowed_s = chosen.allowed_s(stage)
            faulthandler.dump_traceback_later(allowed_s + CLEANING_S, exit=True)
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(_within(allowed_s, chosen.run(stage)))
        except LeftOut as reason:
            left_out = str(reason)
        except Exception as error:
            tell("".join(traceback.format_exception(error)))
            problem = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        finally:
            faulthandler.cancel_dump_traceback_later()
    if not problem and (left := _children()):
        problem = f"left processes behind: {left}"
    return Result(chosen, time.monotonic() - began_s, stage.figures, problem, left_out)


async def _within(seconds: float, body: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(seconds) as limit:
            await body
    except TimeoutError:
        if limit.expired():
            raise TimeoutError(f"not finished within {seconds:.0f} s") from None
        raise


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="endure-"))
    try:
        folder.chmod(0o711)  # Dovecot's processes of another user pass through
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # a killed process may write its last file yet


def _children() -> list[int]:
    """Processes that a scenario started and did not end."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.append(int(status.parent.name))
    return found
