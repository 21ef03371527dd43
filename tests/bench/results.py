"""A run's figures, read back from the JSON that ``scripts/bench`` writes: for the plot and for the README's table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.candidate import DIRECT, DOVECOT, EMAILPROXY, PREWARMED, PYPI, STUNNEL

ORDER = (EMAILPROXY, PREWARMED, STUNNEL, DOVECOT, PYPI, DIRECT)
"""Of a panel's bars and a table's columns."""
ROUND_TRIPS = "round trips"
EXACT_FROM = 100  # a figure of three digits before the point has none behind it


@dataclass(frozen=True, slots=True)
class Figure:
    """One candidate's rounds: their median, the lowest and the highest."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Measure:
    name: str
    unit: str
    better: str
    target: str
    figures: dict[str, Figure]

    @property
    def bound(self) -> float | None:
        """The target as a number, in the measure's unit; None where the text has none, or its candidate did not run."""
        return bound(self.target, self.figures)

    @property
    def reached(self) -> bool | None:
        """Whether emailproxy's median is within the target; None where that cannot be said."""
        limit, ours = self.bound, self.figures.get(EMAILPROXY)
        if limit is None or ours is None:
            return None
        value = round(ours.median) if self.unit == ROUND_TRIPS else ours.median  # the rest is the machine's own time
        return value >= limit if self.better == "higher" else value <= limit


@dataclass(frozen=True, slots=True)
class Run:
    machine: dict[str, Any]
    date: str
    measures: tuple[Measure, ...]

    @property
    def candidates(self) -> list[str]:
        """Each that has a figure."""
        return in_order(name for measure in self.measures for name in measure.figures)


# "0.8 of Dovecot's", "Dovecot's", "36 KiB", "under 5 ms", "at most 1,000"
RELATIVE = re.compile(r"(?:([\d.]+) of )?([A-Za-z]\w*)'s\b")
ABSOLUTE = re.compile(r"\d[\d,]*(?:\.\d+)?")


def bound(target: str, figures: dict[str, Figure]) -> float | None:
    """The number that a target's text means: its own, or a candidate's median times its factor."""
    if relative := RELATIVE.search(target):
        factor, name = relative.groups()
        found = [figure for other, figure in figures.items() if name.casefold() in other.casefold()]
        return float(factor or 1) * found[0].median if found else None
    absolute = ABSOLUTE.search(target)
    return float(absolute[0].replace(",", "")) if absolute else None


def in_order(names: Iterable[str]) -> list[str]:
    """Each once; those that nobody knows come last."""
    return sorted(set(names), key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def read(path: Path) -> Run:
    """What a run wrote."""
    data = json.loads(path.read_text())
    return Run(data["machine"], data["date"], tuple(_measure(measure) for measure in data["measures"]))


def _measure(data: dict[str, Any]) -> Measure:
    figures = {
        name: Figure(figure["median"], figure["low"], figure["high"]) for name, figure in data["candidates"].items()
    }
    return Measure(data["name"], data["unit"], data["better"], data["target"] or "", figures)


def written(value: float) -> str:
    """Three digits that say something, and no more than three behind the point: 0.042, 3.41, 27.3, 216, 10,000."""
    return f"{value:,.0f}" if abs(value) >= EXACT_FROM else f"{round(value, 3):.3g}"
