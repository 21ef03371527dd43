"""The bench's frame: every measure of every candidate, round by round, so that a slow minute hits all of them alike."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tests.bench.candidate import Candidate
from tests.bench.effort import Effort, effort_for

if TYPE_CHECKING:
    from tests.bench.site import Bench

CALL_S = 600.0
"""One round of one candidate; the longest opens ten thousand connections."""
Run = Callable[["Bench", Candidate, Effort], Awaitable[float | None]]


@dataclass(frozen=True, slots=True)
class Measure:
    """What a module of `tests.bench.measures` says of itself."""

    id: str
    """The module's name: what ``--only`` takes."""
    name: str
    unit: str
    target: str
    candidates: tuple[str, ...]
    run: Run
    better: Literal["lower", "higher"] = "lower"
    rounds: int | None = None
    """At most so many."""


@dataclass(slots=True)
class Figures:
    """One measure's, by candidate; and what went wrong."""

    measure: Measure
    rounds: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def best_c(self, kinds: Mapping[str, str]) -> tuple[str, float] | None:
        """The best of the candidates in C, by the median; None where no such has a figure."""
        medians = {name: statistics.median(values) for name, values in self.rounds.items()}
        return best_in_c(medians, self.measure.better, kinds)


def best_in_c(medians: Mapping[str, float], better: str, kinds: Mapping[str, str]) -> tuple[str, float] | None:
    """The best of the candidates in C; None where no such has a figure."""
    in_c = [(name, median) for name, median in medians.items() if kinds.get(name) == "C"]
    if not in_c:
        return None
    return (min if better == "lower" else max)(in_c, key=lambda pair: pair[1])


def load(name: str) -> Measure:
    module = importlib.import_module(f"tests.bench.measures.{name}")
    better, rounds = getattr(module, "BETTER", "lower"), getattr(module, "ROUNDS", None)
    candidates = tuple(module.CANDIDATES)
    return Measure(name, module.NAME, module.UNIT, module.TARGET, candidates, module.measure, better, rounds)


async def run(bench: Bench, measure: Measure, candidates: Sequence[Candidate], rounds: int, *, short: bool) -> Figures:
    """A B C A B C ...: whoever fails once is not asked again, and has no figure."""
    figures = Figures(measure)
    able = [candidate for candidate in candidates if candidate.name in measure.candidates]
    for number in range(min(rounds, measure.rounds or rounds)):
        bench.round = number
        for candidate in able:
            if candidate.name not in figures.failures:
                effort = effort_for(short=short, slow=candidate.slow)
                await _one(figures, measure.run(bench, candidate, effort), candidate.name)
    for name in figures.failures:
        figures.rounds.pop(name, None)
    return figures


async def _one(figures: Figures, call: Awaitable[float | None], name: str) -> None:
    try:
        async with asyncio.timeout(CALL_S):
            value = await call
    except Exception as error:  # whatever it is, the others are measured
        figures.failures[name] = f"{type(error).__name__}: {error}"
        for cause in causes(error):
            figures.failures[name] += f"\n  {type(cause).__name__}: {cause}"
    else:
        if value is not None:
            figures.rounds.setdefault(name, []).append(value)


def causes(error: BaseException) -> list[BaseException]:
    """The first of a group's, as deep as it goes: a thousand clients were refused for the same reason."""
    found: list[BaseException] = []
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
        found.append(error)
    return found


def summary(values: Sequence[float]) -> dict[str, Any]:
    """One candidate's rounds, as the JSON file has them."""
    return {
        "rounds": list(values), "median": statistics.median(values), "low": min(values), "high": max(values),
    }  # fmt: skip


def document(machine: Mapping[str, Any], date: str, results: Sequence[Figures]) -> dict[str, Any]:
    """The JSON file."""
    listed = [
        {
            "id": figures.measure.id,
            "name": figures.measure.name,
            "unit": figures.measure.unit,
            "better": figures.measure.better,
            "target": figures.measure.target,
            "candidates": {name: summary(values) for name, values in figures.rounds.items()},
        }
        for figures in results
    ]
    return {"machine": dict(machine), "date": date, "measures": listed}


def write(path: Path, content: Mapping[str, Any]) -> None:
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
