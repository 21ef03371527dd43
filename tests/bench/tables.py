"""What a person reads on the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.bench.candidate import EMAILPROXY
from tests.bench.frame import Figures, best_in_c
from tests.bench.results import Run, written

WIDTH = 100
NONE = "-"


def console() -> Console:
    """As wide as the terminal; a file or a log gets what fits most screens."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=WIDTH)


def of_measure(figures: Figures, kinds: Mapping[str, str]) -> Table:
    """A candidate a row."""
    measure, best = figures.measure, figures.best_c(kinds)
    target = f"; target: {measure.target}" if measure.target else ""
    title = Text(f"{measure.name}\n{measure.unit}, {measure.better} is better{target}")
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("", width=20)
    for head in ("median", "low", "high", "to best in C"):
        table.add_column(head, justify="right", width=12)
    for name, values in figures.rounds.items():
        median = statistics.median(values)
        numbers = (written(median), written(min(values)), written(max(values)))
        table.add_row(name, *numbers, _ratio(median, best))
    for name in figures.failures:
        table.add_row(name, "failed")
    return table


def of_all(run: Run, kinds: Mapping[str, str]) -> Table:
    """A measure a row: emailproxy beside the best of those in C."""
    title = "emailproxy beside the best in C, medians"
    table = Table(title=title, title_justify="left", title_style="bold", width=WIDTH, box=SIMPLE_HEAD)
    table.add_column("measure", ratio=1)
    table.add_column("emailproxy", justify="right")
    table.add_column("best in C", justify="right")
    table.add_column("ratio", justify="right")
    table.add_column("target", max_width=26)
    table.add_column("reached")
    for measure in run.measures:
        ours = measure.figures.get(EMAILPROXY)
        medians = {name: figure.median for name, figure in measure.figures.items()}
        best = best_in_c(medians, measure.better, kinds)
        table.add_row(
            Text(f"{measure.name} [{measure.unit}]"),
            NONE if ours is None else written(ours.median),
            NONE if best is None else f"{best[0]} {written(best[1])}",
            NONE if ours is None else _ratio(ours.median, best),
            measure.target or NONE,
            {True: "yes", False: "no", None: NONE}[measure.reached],
        )
    return table


def _ratio(value: float, best: tuple[str, float] | None) -> str:
    return NONE if best is None or not best[1] else f"{value / best[1]:.2f}"
